"""Owns stopping sessions: asking for it, and waiting on the watch stream until they have ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cli.connection import failure
from cli.exitcodes import Failure
from cli.progress import Progress
from cli.sessions import ACTIVE
from cli.text import one_line
from medforged.contract import methods
from medforged.contract.errors import ErrorCode
from medforged.contract.exitcodes import ExitCode
from medforged.contract.sessions import Session, SessionRef, SessionStatus
from medforged.contract.watch import Heartbeat, SessionChanged, Synced, WatchEvent

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["Ends", "stop"]

# What passes while a daemon restarts; anything else would come again at every attempt.
_PASSING = frozenset({ErrorCode.UNREACHABLE, ErrorCode.SHUTTING_DOWN})


async def stop(
    client: DaemonClient, sessions: Iterable[Session], progress: Progress, wait_seconds: float | None
) -> None:
    """Ask every one of `sessions` to stop and wait for their ends; `wait_seconds` None does not wait.

    Each end is told to `progress`. One that cannot be asked does not keep the others from being stopped. Raises
    Failure when all is done for all that went wrong: its exit code is that of the first.
    """
    failures: list[Failure] = []
    stopping = await _ask(client, sessions, progress, failures)
    if wait_seconds is None:
        for session in stopping:
            progress.say(f"{session.slug} was asked to stop")
    elif stopping:
        ends = Ends(client, stopping, progress)
        try:
            async with asyncio.timeout(wait_seconds):
                await ends.follow()
        except TimeoutError:
            slugs = ", ".join(session.slug for session in ends.outstanding)
            again = "the daemon goes on; look again with medforgectl sessions ls"
            ends.failures.append(
                Failure(f"cannot see the end of {slugs} within {wait_seconds:g} s: {again}", ExitCode.TEMPORARY)
            )
        failures += ends.failures
    if failures:
        raise Failure("; ".join(dict.fromkeys(told.message for told in failures)), failures[0].code)


async def _ask(
    client: DaemonClient, sessions: Iterable[Session], progress: Progress, failures: list[Failure]
) -> list[Session]:
    from medforged.client import DaemonError

    # All at once: a daemon that restarts is waited out once, and not for each of them in turn.
    asked = list(sessions)
    answers = await asyncio.gather(
        *(client.call(methods.sessions_stop, SessionRef(session_id=session.id)) for session in asked),
        return_exceptions=True,
    )
    stopping: list[Session] = []
    for session, answer in zip(asked, answers, strict=True):
        if isinstance(answer, DaemonError):
            failures.append(failure(answer))
        elif isinstance(answer, BaseException):
            raise answer
        elif answer.requested:
            stopping.append(answer.session)
        else:
            progress.say(f"{session.slug} had ended before ({answer.session.status})")
    return stopping


class Ends:
    """Sessions on their way to their ends, as far as the daemon has told.

    A daemon that is away meanwhile is waited for. There is no deadline here: that is the caller's.
    """

    def __init__(self, client: DaemonClient, sessions: Iterable[Session], progress: Progress) -> None:
        self._client = client
        self._outstanding = {session.id: session for session in sessions}
        self._progress = progress
        self._asked = False
        self.failures: list[Failure] = []

    @property
    def outstanding(self) -> tuple[Session, ...]:
        """Those that have not ended yet."""
        return tuple(self._outstanding.values())

    async def follow(self) -> None:
        """Return when every session has ended. Raises DaemonError for what waiting does not heal."""
        from medforged.client import DaemonError, watch_forever

        self._tell()
        async with contextlib.aclosing(watch_forever(self._client)) as events:
            async for event in events:
                if not isinstance(event, DaemonError):
                    await self._take(event)
                elif event.code in _PASSING:
                    self._progress.show(one_line(event.message))
                else:
                    raise event
                if not self._outstanding:
                    return

    async def _take(self, event: WatchEvent) -> None:
        match event:
            case SessionChanged():
                self._settle(event.session)
            case Synced():
                # A stream tells of active sessions and of changes: what had ended before it began has to be asked for.
                self._asked = await self._ask()
                self._tell()
            case Heartbeat():
                self._asked = self._asked or await self._ask()

    async def _ask(self) -> bool:
        from medforged.client import DaemonError

        try:
            for session_id in tuple(self._outstanding):
                answer = await self._client.call(methods.sessions_get, SessionRef(session_id=session_id))
                self._settle(answer.session)
        except DaemonError as error:
            if error.code in _PASSING:
                return False
            raise
        return True

    def _settle(self, session: Session) -> None:
        if session.id not in self._outstanding or session.status in ACTIVE:
            return
        del self._outstanding[session.id]
        self._progress.say(f"{session.slug} {session.status}")
        if session.status is SessionStatus.ERROR:
            reason = one_line(session.error_message or "its record does not say why")
            self.failures.append(Failure(f"session {session.slug} ended in error: {reason}", ExitCode.FAILED))
        self._tell()

    def _tell(self) -> None:
        self._progress.show(f"waiting for {', '.join(session.slug for session in self.outstanding)} to end")
