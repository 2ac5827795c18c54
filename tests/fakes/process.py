"""Owns the fake of the subprocess door: answers that a test writes down or takes from recorded output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medforged.adapters.process import CommandFailed, CommandResult

Answer = CommandResult | CommandFailed


@dataclass(frozen=True)
class Recording:
    """One program's run as a fixture file has it; `means` is the fixture's own remark."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    means: str | None = None

    def answer(self) -> Answer:
        if self.status == 0:
            return CommandResult(self.stdout, self.stderr)
        return CommandFailed(self.argv, self.status, self.stdout, self.stderr, f"ended with status {self.status}")


def load_recordings(path: Path) -> list[Recording]:
    return [Recording(tuple(entry.pop("argv")), **entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


class ScriptedRun:
    """A `Run` that answers from recordings, by argument list, or with what `answer` returns; `calls` has every one.

    An argument list that nobody expected is an error of the test.
    """

    def __init__(
        self, recordings: Iterable[Recording] = (), *, answer: Callable[[tuple[str, ...]], Answer] | None = None
    ) -> None:
        self._recordings = {recording.argv: recording for recording in recordings}
        self._answer = answer
        self.calls: list[tuple[str, ...]] = []

    async def __call__(
        self, argv: Sequence[str], *, timeout_seconds: float, stdin: bytes | None = None, cwd: Path | None = None
    ) -> CommandResult:
        self.calls.append(tuple(argv))
        recording = self._recordings.get(tuple(argv))
        if recording is not None:
            answer = recording.answer()
        elif self._answer is not None:
            answer = self._answer(tuple(argv))
        else:
            raise AssertionError(f"nobody expected {argv}")
        if isinstance(answer, CommandFailed):
            raise answer
        return answer
