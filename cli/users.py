"""Owns accounts as people name and read them: a page of them, addresses for completion, and the words for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from cli.connection import Facade
from cli.exitcodes import Failure
from cli.text import readable
from medforged.contract.operators import users_list
from medforged.contract.users import ListUsers, User, UserPage

if TYPE_CHECKING:
    from medforged.client import DaemonClient

__all__ = ["complete", "described", "page", "reference", "role", "state"]

# The most accounts that the socket gives in one answer.
_PAGE: Final = 500
# More are no help to somebody who is typing.
_COMPLETED: Final = 50


def reference(text: str) -> str:
    """An account as a person names it, by id or address: which of them it is, is for the facade to judge."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not text in this locale") from None
    return text


def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Addresses that begin so; none where the facade does not answer, since a shell cannot show why."""
    wanted = ListUsers(email=incomplete, limit=_COMPLETED)
    try:
        known = Facade.of(context).run(lambda client: client.call(users_list, wanted)).users
    except Failure:
        return []
    return [CompletionItem(user.email, help=described(user)) for user in known if readable(user.email) == user.email]


async def page(client: DaemonClient, wanted: ListUsers, limit: int) -> UserPage:
    """The newest accounts, at most `limit` of them, in as many calls as that takes."""
    found: list[User] = []
    while True:
        last = found[-1] if found else None
        answer = await client.call(
            users_list,
            ListUsers(
                email=wanted.email,
                is_admin=wanted.is_admin,
                is_disabled=wanted.is_disabled,
                before_created_at=last.created_at if last else None,
                before_id=last.id if last else None,
                limit=min(_PAGE, limit - len(found)),
            ),
        )
        found += answer.users
        if not answer.has_more or len(found) >= limit:
            return UserPage(users=found, has_more=answer.has_more)


def role(user: User) -> str:
    return "admin" if user.is_admin else "user"


def state(user: User) -> str:
    return "disabled" if user.is_disabled else "enabled"


def described(user: User) -> str:
    """What an account may do, in a few words."""
    sessions = "1 session" if user.max_concurrent_sessions == 1 else f"{user.max_concurrent_sessions} sessions"
    return f"{role(user)}, {state(user)}, {sessions} at once"
