"""Owns the processes and other things that `ops/up` started, so that `ops/down` ends exactly those.

A process is remembered by its pid and its start time: a pid alone may have been given to somebody else since.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common import Failure, say, wait_for


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Ledger:
    """What was started, in order, in a file that survives the script but not a reboot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, dict[str, int | str]] = {}
        with contextlib.suppress(FileNotFoundError):
            self.entries = json.loads(path.read_text())

    def note(self, name: str, **facts: int | str) -> None:
        self.entries.pop(name, None)
        self.entries[name] = facts
        self._write()

    def forget(self, name: str) -> None:
        if self.entries.pop(name, None) is not None:
            self._write()

    def pid(self, name: str) -> int | None:
        """The process that was started under this name, if it still runs."""
        entry = self.entries.get(name)
        if entry is None or "pid" not in entry:
            return None
        pid = int(entry["pid"])
        return pid if start_time(pid) == entry["start_time"] else None

    def start(self, name: str, argv: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> int:
        """Start a program in a session of its own, its output appended to a log."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **(env or {})},
            )
        started = start_time(process.pid)
        if started is None:
            raise Failure(f"{name} ended at once; see {log}")
        self.note(name, pid=process.pid, start_time=started)
        return process.pid

    def wait_ready(self, name: str, log: Path, read_from: int, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until a started program answers. Raises Failure with its last words when it ends instead."""

        def answers_or_ended() -> bool:
            if self.pid(name) is None:
                with log.open("rb") as lines:
                    lines.seek(read_from)
                    said = lines.read().decode(errors="replace").strip().splitlines()[-3:]
                self.forget(name)
                raise Failure(f"the {name} did not start (log: {log}):\n  " + "\n  ".join(said))
            return ready()

        wait_for(f"the {name}'s answer", answers_or_ended, seconds, f"see {log}")

    def stop(self, name: str, grace_seconds: float = 30.0, *, quiet: bool = False) -> None:
        """End the process of this name, if it is still the one that was started."""
        pid = self.pid(name)
        if pid is not None:
            if not quiet:
                say(f"stopping {name} (pid {pid})")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while self._running(name, pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._running(name, pid):
                say(f"{name} does not end; killing it")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_for(f"the end of {name}", lambda: not self._running(name, pid), 10, f"see process {pid}")
        self.forget(name)

    def _running(self, name: str, pid: int) -> bool:
        # Our own children stay zombies until they are waited for.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return self.pid(name) == pid

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.entries, indent=1))
        part.replace(self._path)
