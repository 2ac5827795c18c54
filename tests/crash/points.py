"""Owns the points at which a daemon can be killed: before and after every call that changes anything, found by itself.

A port's method is a point unless it is listed here as one that only looks, so that a new method is covered without
anyone remembering; tests/crash/test_points.py holds the lists against the ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

from medforged.domain.isolation import Stray
from medforged.ports.clock import Clock
from medforged.ports.containers import ContainerRuntime
from medforged.ports.gpus import GpuDriver
from medforged.ports.isolation import Isolation
from medforged.ports.parts import Parts
from medforged.ports.processes import ProcessTable
from medforged.ports.readiness import ReadinessProbe
from medforged.ports.state import SessionChange, StateStore
from medforged.ports.workspaces import WorkspaceStore
from tests.crash.shared import Shared

__all__ = [
    "LOOKS",
    "NEVER_SECONDS",
    "PLAIN",
    "PORTS",
    "HurriedClock",
    "Points",
    "Strikes",
    "at",
    "nowhere",
    "watched",
    "with_ports",
]

PORTS: Mapping[str, type] = MappingProxyType(
    {
        "state": StateStore,
        "containers": ContainerRuntime,
        "workspaces": WorkspaceStore,
        "isolation": Isolation,
        "gpus": GpuDriver,
        "readiness": ReadinessProbe,
        "processes": ProcessTable,
        "clock": Clock,
    }
)
# Methods that wait for nothing: neither do they change anything.
PLAIN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "containers": frozenset({"describe", "subscribe"}),
        "workspaces": frozenset({"describe", "locate"}),
        "isolation": frozenset({"describe"}),
        "gpus": frozenset({"describe"}),
        "clock": frozenset({"now", "monotonic"}),
    }
)
# Methods that only look. Whatever is not named is taken to change something.
LOOKS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "state": frozenset(
            {
                "session",
                "sessions",
                "active",
                "recorded",
                "changed_since",
                "revision",
                "epoch",
                "gpus",
                "gpu",
                "gpu_holders",
            }
        ),
        "containers": frozenset({"ping", "network", "resolve_image", "inspect", "containers", "logs"}),
        "workspaces": frozenset({"exists", "snapshots", "is_empty", "keys"}),
        "isolation": frozenset({"changed", "strays"}),
        "gpus": frozenset({"inventory", "changed"}),
        "readiness": frozenset({"wait"}),
        "processes": frozenset({"of_container"}),
        "clock": frozenset({"sleep"}),
    }
)
# Looks that last until something happens: who waits there is at rest.
_RESTS = frozenset({("isolation", "changed"), ("gpus", "changed")})
# An interval that no run lives to see the end of.
NEVER_SECONDS = 1e6
# The hurried clock's seconds are counted in these.
_FRACTION = 1024
# So many turns of the event loop without a call, and nothing is left that could make one.
_TURNS = 40


# Whether the daemon is killed at this point; the second is the one that it reached before, or nothing.
Strikes = Callable[[str, str], bool]


def nowhere(_label: str, _previous: str) -> bool:
    """It lives on."""
    return False


def at(target: str | None) -> Strikes:
    """It is killed at this point alone."""
    return lambda label, _: label == target


class Points:
    """Counts the points that one daemon reaches while armed, and kills it at the first that `strikes`, which is asked
    with the one before it. `left` is asked at each what a crash there would leave, and its answer noted."""

    def __init__(self, shared: Shared, strikes: Strikes = nowhere, left: Callable[[], str] = str) -> None:
        self._shared = shared
        self._strikes = strikes
        self._left = left
        self._met: Counter[str] = Counter()
        self._calls = 0
        self._rest = 0

    def name(self, what: str) -> str:
        """What it is called, the same in every life: the second one of a kind is `… #2`."""
        self._met[what] += 1
        return what if self._met[what] == 1 else f"{what} #{self._met[what]}"

    def reach(self, label: str) -> None:
        if not self._shared.armed:
            return
        previous = next(reversed(self._shared.trace), "")
        self._shared.tell(label, self._left())
        if self._strikes(label, previous):
            # Nothing of this process runs after this line: no handler, no `finally`, no flush.
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Around everything that the daemon waits for and that ends by itself."""
        self._calls += 1
        self._rest += 1
        self._shared.idle = False
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                asyncio.get_running_loop().call_soon(self._turn, self._rest, _TURNS)

    def _turn(self, rest: int, left: int) -> None:
        if rest != self._rest:
            return
        if left:
            asyncio.get_running_loop().call_soon(self._turn, rest, left - 1)
        else:
            self._shared.idle = True

    @property
    def armed(self) -> bool:
        return self._shared.armed


class _Watched:
    """A port with points around each of its calls."""

    def __init__(self, port: str, target: Any, points: Points) -> None:
        self._port = port
        self._target = target
        self._points = points

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._target, method)
        if method in PLAIN.get(self._port, ()) or (self._port, method) in _RESTS:
            return call
        return self._looking(call) if method in LOOKS[self._port] else self._changing(method, call)

    def _looking(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def look(*args: Any, **kwargs: Any) -> Any:
            with self._points.busy():
                return await call(*args, **kwargs)

        return look

    def _changing(self, method: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def change(*args: Any, **kwargs: Any) -> Any:
            with self._points.busy():
                if not self._points.armed:
                    return await call(*args, **kwargs)
                label = self._points.name(f"{self._port}.{method}{_described(args, kwargs)}")
                self._points.reach(f"{label} before")
                try:
                    return await call(*args, **kwargs)
                finally:
                    self._points.reach(f"{label} after")

        return change


class HurriedClock:
    """A clock that runs `pace` times as fast, so that short pauses cost next to nothing; long intervals never end.

    Only pauses take time by it, so that a deadline comes after the same number of attempts however busy the machine is.
    """

    def __init__(self, clock: Clock, points: Points, pace: float) -> None:
        self._clock = clock
        self._points = points
        self._pace = pace
        self._passed = 0.0

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        if seconds >= NEVER_SECONDS:
            await self._clock.sleep(seconds)
            return
        # A fraction that sums keep exactly, and never earlier than asked for: a deadline slept for has then come.
        due = math.ceil((self._passed + seconds) * _FRACTION) / _FRACTION
        with self._points.busy():
            await self._clock.sleep(seconds / self._pace)
            self._passed = max(self._passed, due)


def watched(parts: Parts, points: Points, *, pace: float) -> Parts:
    """The parts with a point before and after everything that changes anything."""
    seen = with_ports(parts, lambda port, target: _Watched(port, target, points))
    return replace(seen, clock=HurriedClock(parts.clock, points, pace))


def with_ports(parts: Parts, around: Callable[[str, Any], Any]) -> Parts:
    """The parts with something around each of their ports but the clock."""
    adapters = {name: around(name, getattr(parts.adapters, name)) for name in PORTS if hasattr(parts.adapters, name)}
    return replace(
        parts,
        state=around("state", parts.state),
        processes=around("processes", parts.processes),
        adapters=replace(parts.adapters, **adapters),
    )


def _described(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What of the arguments is the same in every run and tells one call from another."""
    words: list[str] = []
    for value in args:
        match value:
            case SessionChange():
                words += _changes(value)
            case Stray():
                words.append(f"{value.kind.value} {value.name}")
            case str() if value.startswith("mf-session-"):
                words.append("mf-session-…")
            case _:
                pass
    words += [f"{name}={value}" for name, value in kwargs.items() if isinstance(value, bool)]
    return "".join(f" {word}" for word in words)


def _changes(change: SessionChange) -> list[str]:
    values = {field.name: getattr(change, field.name) for field in fields(change)}
    return [
        f"{name}={value.value}" if isinstance(value, Enum) else name
        for name, value in values.items()
        if value is not None
    ]
