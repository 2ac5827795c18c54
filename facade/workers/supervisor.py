"""Owns the supervisor: it keeps so many workers running, hears how they are, and speaks for all of them to systemd.

It does nothing else, and has neither threads nor an event loop, so that it can fork at any moment.

    SIGTERM, SIGINT   end the workers: each stops accepting, then answers whoever is connected
    SIGTERM to one worker replaces it; the next one accepts while it answers

A worker that ends otherwise is started again, after a pause that grows while that one ends early. One that has not been
heard for `hung_seconds` is killed. When the supervisor is gone, the workers end by themselves.
"""

from __future__ import annotations

import gc
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from facade.notify import Notifier
from facade.workers.children import Child, fork
from medforged.contract.exitcodes import ExitCode

__all__ = ["BEAT_SECONDS", "Supervisor"]

_log = structlog.get_logger()

# How often a worker says that it lives.
BEAT_SECONDS = 2.0
_FIRST_DELAY_SECONDS = 0.1
_LAST_DELAY_SECONDS = 5.0
# A worker that has served for so long does not end for the reason that the one before it ended for.
_SETTLED_SECONDS = 10.0


class Supervisor:
    """`prepare` runs once, in a process of its own, before `count` workers run `work(number, channel)`.

    Both return an exit code. A worker that does not end within `stop_seconds` is killed.
    """

    def __init__(
        self,
        count: int,
        prepare: Callable[[], int],
        work: Callable[[int, socket.socket], int],
        notifier: Notifier,
        *,
        stop_seconds: float,
        beat_seconds: float = BEAT_SECONDS,
        hung_seconds: float = 30.0,
    ) -> None:
        self._numbers = range(1, count + 1)
        self._prepare = prepare
        self._work = work
        self._notifier = notifier
        self._stop_seconds = stop_seconds
        self._beat_seconds = beat_seconds
        self._hung_beats = round(hung_seconds / beat_seconds)
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        # Who serves under each number; a predecessor may still be answering.
        self._serving: dict[int, Child] = {}
        # When the next one under a number is to be started, and how often in a row it ended early.
        self._due: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._next_beat = 0.0
        self._started = False
        self._stop = False
        self._status = int(ExitCode.OK)

    def run(self) -> int:
        """Until asked to stop, or until a worker cannot start at all. Returns the exit code."""
        with self._hearing_signals():
            try:
                self._status = self._run_alone(lambda _channel: self._prepare())
                # What is there by now is shared by all and never freed: not touched, it is not copied.
                gc.collect()
                gc.freeze()
                if not self._stop:
                    for number in self._numbers:
                        self._start(number)
                while not self._stop:
                    self._turn()
                self._end()
            finally:
                for child in self._children:
                    child.signal(signal.SIGKILL)
                    child.reap()
                self._selector.close()
        return self._status

    def _run_alone(self, body: Callable[[socket.socket], int]) -> int:
        """Run it before anything else; its failure ends everything."""
        child = self._fork(0, body)
        while child.status is None:
            self._turn()
            if self._stop:
                child.signal(signal.SIGTERM)
        if child.status != ExitCode.OK and not self._stop:
            self._stop = True
            return child.status
        return int(ExitCode.OK)

    def _start(self, number: int) -> None:
        self._due.pop(number, None)
        self._serving[number] = self._fork(number, lambda channel: self._work(number, channel))

    def _fork(self, number: int, body: Callable[[socket.socket], int]) -> Child:
        child = fork(number, body, self._leave)
        self._children.append(child)
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._hear(child))
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._note_end(child))
        return child

    def _leave(self) -> None:
        """In a child: a descriptor of another's channel would keep that one from noticing the supervisor's end."""
        self._selector.close()
        for child in self._children:
            child.close()

    def _turn(self) -> None:
        """Wait for something to happen, and do what is due."""
        now = time.monotonic()
        due = min([self._next_beat, *self._due.values()])
        for key, _ in self._selector.select(max(0.0, due - now)):
            key.data()
        now = time.monotonic()
        if not self._stop:
            for number in [number for number, at in self._due.items() if at <= now]:
                self._start(number)
        if now >= self._next_beat:
            self._next_beat = now + self._beat_seconds
            self._beat()

    def _beat(self) -> None:
        self._notifier.tell("WATCHDOG=1")
        for child in self._children:
            # Counted in turns of our own: when the whole host has stood still, nobody has been silent.
            child.silent += 1
            if child.number and child.silent > self._hung_beats:
                _log.error("worker.hung", worker=child.number, pid=child.pid, remedy="it is killed and started again")
                child.signal(signal.SIGKILL)

    def _hear(self, child: Child) -> None:
        if child.status is not None:
            return  # it ended in the same turn
        was_open = not child.closed
        states = child.hear()
        child.silent = 0
        if was_open and child.closed:
            self._selector.unregister(child.channel)
        if "READY=1" in states:
            child.ready = True
            if not (self._started or self._stop) and all(one.ready for one in self._serving.values()):
                self._started = True
                _log.info("facade.workers_started", workers=len(self._serving))
                self._notifier.tell("READY=1")
        if "STOPPING=1" in states:
            child.stopping = True
            if not self._stop and self._serving.get(child.number) is child:
                _log.info("worker.replaced", worker=child.number, pid=child.pid, reason="it was asked to end")
                self._start(child.number)

    def _note_end(self, child: Child) -> None:
        # Its last words count.
        self._hear(child)
        if not child.closed:
            self._selector.unregister(child.channel)
        self._selector.unregister(child.pidfd)
        self._children.remove(child)
        status = child.reap()
        if self._stop or self._serving.get(child.number) is not child:
            return
        if not self._started:
            self._status = status or int(ExitCode.UNAVAILABLE)
            self._stop = True
            return
        lived = time.monotonic() - child.since
        failures = 0 if lived > _SETTLED_SECONDS else self._failures.get(child.number, 0) + 1
        self._failures[child.number] = failures
        delay = min(_FIRST_DELAY_SECONDS * 2 ** max(failures - 1, 0), _LAST_DELAY_SECONDS)
        self._due[child.number] = time.monotonic() + delay
        _log.error(
            "worker.ended", worker=child.number, pid=child.pid, exit_code=status, seconds=round(lived, 1), next_in=delay
        )

    def _end(self) -> None:
        """Ask all workers to end, and kill those that take too long."""
        deadline = time.monotonic() + self._stop_seconds
        for child in self._children:
            child.signal(signal.SIGTERM)
        told = not self._started
        while self._children:
            if not told and all(child.stopping for child in self._children):
                # Heard as: who connects from now on waits for the next one.
                self._notifier.tell("STOPPING=1")
                told = True
            if time.monotonic() > deadline:
                for child in self._children:
                    _log.error("worker.killed", worker=child.number, pid=child.pid, reason="it did not end in time")
                return
            self._turn()
        if not told:
            self._notifier.tell("STOPPING=1")

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)

        def stop(_number: int, _frame: object) -> None:
            self._stop = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(4096))
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            woken.close()
            wake.close()
