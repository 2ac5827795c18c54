"""Owns keeping one program running behind a Unix socket that never closes, as systemd's socket units do where it runs.

    keeper.py --socket PATH --pid-file PATH [--mode 0660] [--group NAME] [--overlap] -- PROGRAM [ARGUMENT …]

The program takes the socket over as sd_listen_fds(3) tells it, and says how it is by sd_notify(3). Sockets that the
keeper was given in that way itself it holds too, and passes on under their names. While none serves, whoever connects
waits in a socket's backlog. The first program has to become ready, or the keeper ends as it did;
from then on a program that ends is started again, however often it does.

    SIGTERM, SIGINT   end the program, then take the socket away
    SIGHUP            replace the program: with --overlap the old one is ended when its successor is ready, and goes on
                      if that never is; without, the successor is started when the old one has ended

With --overlap a program that says that it is stopping gets its successor at once. A keeper that is killed leaves the
program serving; the next keeper takes the socket's name over and replaces the program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import UNAVAILABLE, Failure
from keeper_programs import PidFile, Program, first_of, start, take_passed
from keeper_socket import listen

FIRST_DELAY_SECONDS = 0.1
LAST_DELAY_SECONDS = 5.0
# A program that has served for so long does not end for the reason that the one before it ended for.
SETTLED_SECONDS = 10.0
READY_SECONDS = 60.0
# As many connections at once as the backlog lets wait, and more, where the host's own limit allows it.
OPEN_FILES = 65536
_UCRED = struct.Struct("3i")


class Keeper:
    """One socket and the program behind it."""

    def __init__(
        self,
        argv: Sequence[str],
        listeners: Mapping[str, int],
        pid_file: PidFile,
        *,
        overlap: bool,
        stop_seconds: float,
    ) -> None:
        self._argv = argv
        self._listeners = listeners
        self._pid_file = pid_file
        self._overlap = overlap
        self._stop_seconds = stop_seconds
        self._serving: Program | None = None
        self._running: list[Program] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._restart = asyncio.Event()
        self._stop = asyncio.Event()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        # The kernel makes up a name for it, and tells of every message who sent it.
        self._notify.bind("")
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    async def run(self) -> int:
        """Keep the program until asked to stop. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._restart.set)
        loop.add_reader(self._notify, self._hear)
        orphans = [Program(pid) for pid in self._pid_file.running()]
        self._running += orphans
        if not self._overlap:
            await self._end(*orphans)
        program = self._start()
        await first_of(program.ready, program.ended, self._stop)
        if program.ended.is_set() and not self._stop.is_set():
            self._say(f"did not start (exit code {program.status})")
            await self._end(*orphans)
            self._pid_file.remove()
            return program.status or UNAVAILABLE
        self._let_serve(program)
        self._end_soon(*orphans)
        while not self._stop.is_set():
            program = await self._next(program)
        await self._end(*self._running)
        self._pid_file.remove()
        return 0

    async def _next(self, program: Program) -> Program:
        """Wait until something happens to the program or is asked for; return the one that serves then."""
        over = (program.ended, program.stopping) if self._overlap else (program.ended,)
        await first_of(*over, self._restart, self._stop)
        if not self._stop.is_set() and not any(event.is_set() for event in over):
            self._restart.clear()
            return await self._replace(program)
        if program.ended.is_set():
            await self._pause(program)
        if self._stop.is_set():
            return program
        return self._let_serve(self._start())

    async def _pause(self, program: Program) -> None:
        """Wait before the next one is started: longer each time that one ends early."""
        lived = time.monotonic() - program.since
        on_request = program.ready.is_set() and program.status == 0
        self._failures = 0 if on_request or lived > SETTLED_SECONDS else self._failures + 1
        delay = min(FIRST_DELAY_SECONDS * 2 ** max(self._failures - 1, 0), LAST_DELAY_SECONDS)
        self._say(f"ended (pid {program.pid}, exit code {program.status}) after {lived:.1f} s; next in {delay:g} s")
        await first_of(self._stop, self._restart, seconds=delay)
        self._restart.clear()

    async def _replace(self, old: Program) -> Program:
        if not self._overlap:
            await self._end(old)
            return old if self._stop.is_set() else self._let_serve(self._start())
        new = self._start()
        await first_of(new.ready, new.ended, self._stop, seconds=READY_SECONDS)
        if new.ready.is_set() and not new.ended.is_set():
            self._end_soon(old)
            return self._let_serve(new)
        if not self._stop.is_set():
            await self._end(new)
            self._say(f"goes on (pid {old.pid}): its successor did not start (exit code {new.status})")
        return old

    def _start(self) -> Program:
        notify = "@" + self._notify.getsockname()[1:].decode()
        program = start(self._argv, self._listeners, notify)
        self._running = [one for one in self._running if not one.ended.is_set()]
        self._running.append(program)
        self._write_pids()
        return program

    def _let_serve(self, program: Program) -> Program:
        self._serving = program
        self._write_pids()
        self._say(f"is pid {program.pid}")
        return program

    def _write_pids(self) -> None:
        serving = [self._serving] if self._serving is not None else []
        self._pid_file.write(dict.fromkeys([*serving, *self._running]))

    async def _end(self, *programs: Program) -> None:
        await asyncio.gather(*(program.end(self._stop_seconds) for program in programs))

    def _end_soon(self, *programs: Program) -> None:
        task = asyncio.create_task(self._end(*programs))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _hear(self) -> None:
        """Let a program say how it is; nobody else has a say."""
        message, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(_UCRED.size))
        senders = {_UCRED.unpack(data)[0] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS}
        for program in self._running:
            if program.pid in senders:
                program.hear(message.split(b"\n"))

    def _say(self, what: str) -> None:
        print(f"keeper: the {self._pid_file.path.stem} {what}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="keeper.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--pid-file", type=Path, required=True)
    parser.add_argument("--mode", default="0660", help="of the socket, in octal")
    parser.add_argument("--group", default="", help="of the socket; the keeper's own when empty")
    parser.add_argument("--overlap", action="store_true", help="two programs may serve at once")
    parser.add_argument("--stop-seconds", type=float, default=30.0, help="a program that takes longer to end is killed")
    parser.add_argument("argv", nargs="+", metavar="program")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, most) if most > 0 else OPEN_FILES, most))
    pid_file = PidFile(options.pid_file)
    passed = take_passed()
    try:
        # The program of a keeper that was killed listens there still.
        listener = listen(options.socket, int(options.mode, 8), options.group, replace=bool(pid_file.running()))
    except Failure as error:
        print(f"keeper: cannot listen: {error}", file=sys.stderr)
        return error.code
    inode = options.socket.lstat().st_ino

    listeners = {pid_file.path.stem: listener.fileno(), **passed}

    async def keep() -> int:
        keeper = Keeper(options.argv, listeners, pid_file, overlap=options.overlap, stop_seconds=options.stop_seconds)
        return await keeper.run()

    try:
        return asyncio.run(keep())
    finally:
        with contextlib.suppress(OSError):
            if options.socket.lstat().st_ino == inode:
                options.socket.unlink()


if __name__ == "__main__":
    sys.exit(main())
