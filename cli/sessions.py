"""Owns finding sessions: a page of them, and the one that a person names by its id or its slug."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click
from click.shell_completion import CompletionItem

from cli.connection import Daemon
from cli.exitcodes import Failure
from medforged.contract import methods
from medforged.contract.exitcodes import ExitCode
from medforged.contract.sessions import ListSessions, Session, SessionPage, SessionRef, SessionStatus

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["ACTIVE", "active", "complete", "find", "page", "reference"]

ACTIVE: Final = (SessionStatus.STARTING, SessionStatus.RUNNING, SessionStatus.STOPPING)
_ENDED: Final = (SessionStatus.STOPPED, SessionStatus.ERROR)

# The most sessions that the socket gives in one answer.
_PAGE = 500
_SLUG = re.compile(r"[a-z2-7]{8}")


def reference(text: str) -> UUID | str:
    """A session as a person names it: its id (a UUID) or its slug (a str). Raises click's usage error for neither."""
    if _SLUG.fullmatch(text):
        return text
    try:
        return UUID(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a session's id nor its slug (8 characters of a-z and 2-7)"
        ) from None


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The slugs of active sessions; none where the daemon does not answer, since a shell cannot show why."""
    given = context.params.get(parameter.name or "") or ()
    # While completing, no command runs, so nobody has made the Daemon of the context.
    daemon = Daemon(context.find_root().params.get("socket"))
    try:
        known = daemon.run(active)
    except Failure:
        return []
    return [
        CompletionItem(session.slug, help=f"{session.status}, GPU {session.gpu_id}")
        for session in known
        if session.slug.startswith(incomplete) and session.slug not in given
    ]


async def page(
    client: DaemonClient, statuses: Sequence[SessionStatus] = (), user: UUID | None = None, limit: int | None = None
) -> SessionPage:
    """The newest sessions, at most `limit` of them, in as many calls as that takes."""
    found: list[Session] = []
    has_more = False
    async with contextlib.aclosing(_pages(client, statuses, user, limit)) as answers:
        async for answer in answers:
            found += answer.sessions
            has_more = answer.has_more
    return SessionPage(sessions=found, has_more=has_more)


async def active(client: DaemonClient) -> list[Session]:
    """Every active session, newest first; there are never more of them than GPUs."""
    return (await page(client, ACTIVE)).sessions


async def find(client: DaemonClient, named: UUID | str) -> Session:
    """The session that is named. Raises Failure for a slug, DaemonError for an id, that no session has."""
    if isinstance(named, UUID):
        return (await client.call(methods.sessions_get, SessionRef(session_id=named))).session
    # The socket has no call by slug. Who asks usually means an active session, and those are few.
    for statuses in (ACTIVE, _ENDED):
        async with contextlib.aclosing(_pages(client, statuses)) as answers:
            async for answer in answers:
                for session in answer.sessions:
                    if session.slug == named:
                        return session
    raise Failure(
        f"cannot find session {named}: no session has this slug; list them with medforgectl sessions ls --all",
        ExitCode.NOT_FOUND,
    )


async def _pages(
    client: DaemonClient, statuses: Sequence[SessionStatus], user: UUID | None = None, limit: int | None = None
) -> AsyncGenerator[SessionPage, None]:
    last: Session | None = None
    seen = 0
    while limit is None or seen < limit:
        answer = await client.call(
            methods.sessions_list,
            ListSessions(
                user_id=user,
                statuses=list(statuses),
                before_created_at=last.created_at if last else None,
                before_id=last.id if last else None,
                limit=_PAGE if limit is None else min(_PAGE, limit - seen),
            ),
        )
        yield answer
        if not answer.has_more or not answer.sessions:
            return
        last = answer.sessions[-1]
        seen += len(answer.sessions)
