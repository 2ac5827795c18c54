"""Owns what goes wrong on the host in a scenario, and what a sabotage takes away: calls of a port that are answered otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medforged.ports.parts import Parts
from tests.crash.points import PORTS, with_ports
from tests.crash.shared import Shared

__all__ = ["Answer", "Fault", "altered", "disturbed"]

# Takes the real method, then the call's arguments.
Answer = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Calls of this method are answered by `answer` while faults strike: the first `times` of a life, or all of them."""

    port: str
    method: str
    answer: Answer
    times: int | None = None

    def __post_init__(self) -> None:
        if not hasattr(PORTS[self.port], self.method):
            raise ValueError(f"the port {self.port} has no method {self.method}")


class _Altered:
    """A port of which some methods are answered by somebody else."""

    def __init__(self, target: Any, answers: Mapping[str, Answer]) -> None:
        self._target = target
        self._answers = answers

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._target, method)
        answer = self._answers.get(method)
        if answer is None:
            return call
        return lambda *args, **kwargs: answer(call, *args, **kwargs)


def altered(parts: Parts, answers: Mapping[tuple[str, str], Answer]) -> Parts:
    """The parts with these methods (port, name) answered so."""

    def around(port: str, target: Any) -> Any:
        mine = {method: answer for (where, method), answer in answers.items() if where == port}
        return _Altered(target, mine) if mine else target

    return with_ports(parts, around)


def disturbed(parts: Parts, faults: Iterable[Fault], shared: Shared) -> Parts:
    """The parts with faults that strike while the shared memory says so."""
    struck: Counter[Fault] = Counter()

    def striking(fault: Fault) -> Answer:
        async def answer(call: Answer, *args: Any, **kwargs: Any) -> Any:
            if not shared.disturbed or (fault.times is not None and struck[fault] >= fault.times):
                return await call(*args, **kwargs)
            struck[fault] += 1
            return await fault.answer(call, *args, **kwargs)

        return answer

    return altered(parts, {(fault.port, fault.method): striking(fault) for fault in faults})
