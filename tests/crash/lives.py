"""Owns one life of a daemon: forked from a process that has imported everything, watched, and ended by SIGKILL.

The parent has to be single-threaded, and no event loop may run in it while it forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec
import structlog
import uvloop

from medforged import logs
from medforged.bootstrap import build
from medforged.client import DaemonClient, DaemonError
from medforged.config import Settings
from medforged.contract.daemon import GetStatus, Health
from medforged.contract.errors import ErrorCode
from medforged.contract.methods import Method, daemon_health
from medforged.daemon import serve
from medforged.ports.parts import Parts
from tests.crash.shared import Shared

__all__ = ["Life", "LifeEnded", "PatienceEnded", "living", "rehearse"]

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

# What a daemon has to be well in before something is asked of it: it has looked at everything once, and listens.
_READY = frozenset({"recovery", "events", "isolation"})
_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.005
_PR_SET_PDEATHSIG = 1


class LifeEnded(Exception):
    """The daemon was killed while something was waited for."""


class PatienceEnded(Exception):
    """What was waited for did not happen."""


class Life:
    """A daemon that runs, or ran. `log` gets what it says."""

    def __init__(self, settings: Settings, shared: Shared, around: Callable[[Parts], Parts], log: Path) -> None:
        self.settings = settings
        self.shared = shared
        self._status: int | None = None
        # What another thread holds at this moment would stay locked in the child for ever.
        assert threading.active_count() == 1, threading.enumerate()
        self._pid = os.fork()
        if not self._pid:
            _live(settings, around, log)

    @property
    def ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    @property
    def killed(self) -> bool:
        """Whether it ended by SIGKILL and not by a defect of its own."""
        return self._status is not None and os.WIFSIGNALED(self._status) and os.WTERMSIG(self._status) == signal.SIGKILL

    def kill(self) -> None:
        """End it now, as a power cut would."""
        if not self.ended:
            os.kill(self._pid, signal.SIGKILL)
            _, self._status = os.waitpid(self._pid, 0)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait for a condition. Raises LifeEnded, or PatienceEnded after the limit, which is for what never happens."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.ended:
                raise LifeEnded
            if time.monotonic() > deadline:
                raise PatienceEnded(f"no {what} within {seconds:g} s")
            time.sleep(_LOOK_SECONDS)

    def until_ended(self) -> None:
        """Wait until it is dead. Raises PatienceEnded when it is not, and only somebody's connection was lost."""
        with contextlib.suppress(LifeEnded):
            self.until(lambda: self.ended, "end of the daemon")

    def until_idle(self) -> None:
        """Wait until it does nothing by itself any more."""
        self.until(lambda: self.shared.idle, "rest")

    def until_ready(self) -> None:
        """Wait until it has started and recovery has gone over everything once."""
        asyncio.run(self._ready())
        self.until_idle()

    async def _ready(self) -> None:
        _expect_resets()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        async with DaemonClient(Path(self.settings.daemon.socket)) as client:
            while True:
                problems = "no answer"
                try:
                    health = await client.call(daemon_health, GetStatus())
                except DaemonError as error:
                    if error.code is not ErrorCode.UNREACHABLE:
                        raise
                else:
                    ill = [check for check in health.checks if check.name in _READY and check.health is not Health.OK]
                    if not ill:
                        return
                    problems = "; ".join(check.message for check in ill)
                if self.ended:
                    raise LifeEnded
                if time.monotonic() > deadline:
                    raise PatienceEnded(f"not ready within {_PATIENCE_SECONDS:g} s: {problems}")
                await asyncio.sleep(_LOOK_SECONDS)

    async def call(self, method: Method[P, R], params: P) -> R:
        """Call the daemon. Raises LifeEnded when the connection is lost with it, DaemonError for a refusal."""
        _expect_resets()
        async with DaemonClient(Path(self.settings.daemon.socket)) as client:
            try:
                return await client.call(method, params)
            except DaemonError as error:
                if error.code is ErrorCode.UNREACHABLE:
                    raise LifeEnded from error
                raise


def _expect_resets() -> None:
    """A daemon that is killed resets connections under tasks of the HTTP client that nobody awaits any more."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


@contextlib.contextmanager
def living(
    settings: Settings,
    shared: Shared,
    around: Callable[[Parts], Parts],
    log: Path,
    *,
    armed: bool = False,
    disturbed: bool = False,
) -> Iterator[Life]:
    """A daemon's life, which ends here whatever happens."""
    shared.reset(armed=armed, disturbed=disturbed)
    life = Life(settings, shared, around, log)
    try:
        yield life
    finally:
        life.kill()


def rehearse(settings: Settings) -> None:
    """Start and end a daemon within this process, so that those that are forked from it find imported and compiled what
    they need. Its threads have ended when this returns."""

    async def rehearsal() -> None:
        host = await build(settings)
        await host.close()

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    asyncio.run(rehearsal())


def _live(settings: Settings, around: Callable[[Parts], Parts], log: Path) -> NoReturn:
    """The child. Nothing that the parent meant to do is done here: it leaves without unwinding."""
    code = 1
    try:
        # It must not outlive who watches it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        logs.configure("json")
        is_simulated = settings.adapters.containers == "simulated"
        uvloop.run(serve(settings, is_simulated=is_simulated, around=around))
        code = 0
    except BaseException:  # noqa: BLE001  # the process ends here, and whatever ended it has to be in its log
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
