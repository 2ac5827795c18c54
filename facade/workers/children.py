"""Owns a supervisor's child as a process: its fork, the channel on which it says how it is, its signals, its end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from medforged.contract.exitcodes import ExitCode

__all__ = ["Child", "fork"]

# What the supervisor handles itself.
_DEFAULTS = (signal.SIGTERM, signal.SIGINT)


class Child:
    """A process, held by a descriptor so that no signal can reach another that was given its pid since."""

    def __init__(self, number: int, pid: int, channel: socket.socket) -> None:
        self.number = number
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel
        self.since = time.monotonic()
        self.ready = False
        self.stopping = False
        self.closed = False
        """Whether it will say nothing more."""
        self.silent = 0
        """How many beats ago it was last heard."""
        self.status: int | None = None
        """Its exit code as a shell tells it, once it has ended."""

    def hear(self) -> list[str]:
        """All that it has said meanwhile (sd_notify(3))."""
        states: list[str] = []
        while not self.closed:
            try:
                message = self.channel.recv(4096)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            states += message.decode().splitlines()
            self.closed = not message
        return states

    def signal(self, number: int) -> None:
        if self.status is None:
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> int:
        """Take its exit code; to be called when the descriptor says that it has ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.status = code if code >= 0 else 128 - code
        self.close()
        return self.status

    def close(self) -> None:
        """Let go of it."""
        self.channel.close()
        os.close(self.pidfd)


def fork(number: int, body: Callable[[socket.socket], int], leave: Callable[[], None]) -> Child:
    """Start a child that runs `body` with its end of the channel and ends with the exit code that it returns.

    The program's code and the listening sockets are the parent's own, so that a child is there at once, and one that
    is started later runs the code that the others run. `leave` closes, in the child, what is the parent's alone.
    The parent must have no other threads: what they hold at this moment would stay held in the child.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between the fork and the child's own handlers would be heard by the parent as well.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _become(body, theirs, leave, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return Child(number, pid, ours)


def _become(
    body: Callable[[socket.socket], int], channel: socket.socket, leave: Callable[[], None], mask: set[int]
) -> NoReturn:
    status = int(ExitCode.INTERNAL)
    try:
        signal.set_wakeup_fd(-1)
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        leave()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = body(channel)
    except BaseException:  # noqa: BLE001  # the end of the process: nothing above may run twice
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
