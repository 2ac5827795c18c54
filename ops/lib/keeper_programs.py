"""Owns a keeper's programs as processes: starting one with its sockets, its signals and its end, and the pid file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from processes import start_time

# sd_listen_fds(3): passed descriptors start here.
_FIRST_PASSED = 3
# What the keeper was told by whoever started it is not for its programs.
_OURS = ("LISTEN_", "WATCHDOG_", "NOTIFY_")
# What the keeper handles itself, or Python ignores.
_DEFAULTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


class Program:
    """A process, held by a descriptor so that no signal can reach another that was given its pid since."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.since = time.monotonic()
        self.start_time = start_time(pid)
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self.ended = asyncio.Event()
        self.status: int | None = None
        """Its exit code as a shell tells it; None for a process that is not our child."""
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._note_end)

    def hear(self, states: Iterable[bytes]) -> None:
        """Take in what it says of itself (sd_notify(3))."""
        if b"READY=1" in states:
            self.ready.set()
        if b"STOPPING=1" in states:
            self.stopping.set()

    async def end(self, seconds: float) -> None:
        """Ask it to end, and kill it when it has not after so long."""
        self._signal(signal.SIGTERM)
        if not await first_of(self.ended, seconds=seconds):
            self._signal(signal.SIGKILL)
            await self.ended.wait()

    def _signal(self, number: int) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.status = code if code >= 0 else 128 - code
        self.ended.set()


def take_passed() -> dict[str, int]:
    """The listening sockets that this process was given itself, by name, as sd_listen_fds(3) has it."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    descriptors = range(_FIRST_PASSED, _FIRST_PASSED + int(os.environ.get("LISTEN_FDS", "0")))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return dict(zip(names, descriptors, strict=True))


def start(argv: Sequence[str], listeners: Mapping[str, int], notify: str) -> Program:
    """Start a program that gets the descriptors `listeners` by name and tells the address `notify` how it is."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    environ |= {"NOTIFY_SOCKET": notify, "LISTEN_FDS": str(len(listeners)), "LISTEN_FDNAMES": ":".join(listeners)}
    # A signal between fork and exec would be heard by the keeper too: both share what signals are reported by.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        # Not by subprocess: LISTEN_PID is the new process's own.
        pid = os.fork()
        if pid == 0:
            _become(argv, list(listeners.values()), environ, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Program(pid)


def _become(argv: Sequence[str], listeners: Sequence[int], environ: dict[str, str], mask: Iterable[int]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Out of the way first: one of them can be where another has to go.
        free = _FIRST_PASSED + len(listeners)
        aside = [fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, free) for listener in listeners]
        for target, source in enumerate(aside, start=_FIRST_PASSED):
            os.dup2(source, target, inheritable=True)
        os.execvpe(argv[0], [*argv], {**environ, "LISTEN_PID": str(os.getpid())})
    except OSError as error:
        os.write(2, f"keeper: {argv[0]} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(127)


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> bool:
    """Wait until one of them is set; False when that took too long."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return bool(done)


class PidFile:
    """One line for each program: pid and start time (clock ticks since boot). The first one serves."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, programs: Iterable[Program]) -> None:
        part = self.path.with_suffix(".part")
        part.write_text("".join(f"{one.pid} {one.start_time}\n" for one in programs if not one.ended.is_set()))
        part.chmod(0o644)
        part.replace(self.path)

    def running(self) -> list[int]:
        """Those that run. Other users' processes do not count: the file's word is its owner's."""
        try:
            owner = self.path.stat().st_uid
            lines = [line.split() for line in self.path.read_text().splitlines()]
        except OSError:
            return []
        found = []
        for line in lines:
            if len(line) == 2 and all(word.isdigit() for word in line):
                with contextlib.suppress(OSError):
                    if start_time(int(line[0])) == int(line[1]) and Path("/proc", line[0]).stat().st_uid == owner:
                        found.append(int(line[0]))
        return found

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
