"""Owns what admins and operators do with the accounts of others; whoever it concerns is refused at once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

import structlog

from facade.auth.passwords import Passwords
from facade.auth.revision import Revision
from facade.clock import Clock
from facade.store.accounts import AccountRows, Changes, Ended
from facade.store.users import User, UserFilter, Users

__all__ = ["Administration"]

_log = structlog.get_logger()


class Administration:
    """Accounts, seen from above."""

    def __init__(self, users: Users, rows: AccountRows, passwords: Passwords, revision: Revision, clock: Clock) -> None:
        self._users = users
        self._rows = rows
        self._passwords = passwords
        self._revision = revision
        self._clock = clock

    async def page(
        self, wanted: UserFilter, before: tuple[datetime, UUID] | None, limit: int
    ) -> tuple[list[User], bool]:
        """Accounts, newest first, and whether there are more of them."""
        # One more than asked for tells whether there are more.
        found = await self._users.page(wanted, before, limit + 1)
        return found[:limit], len(found) > limit

    async def change(self, user_id: UUID, changes: Changes, *, actor: UUID | None) -> User:
        """Change an account's rights; `actor` is the admin who asks, None for an operator.

        Raises UserNotFound, LastAdmin and NotAdmin.
        """
        user, revision = await self._rows.administer(user_id, changes, actor=actor)
        if revision is not None:
            self._revision.note_user(user_id, revision)
            _log.info(
                "user.changed",
                user_id=str(user_id),
                actor_id=str(actor) if actor else None,
                is_admin=user.is_admin,
                is_disabled=user.is_disabled,
                max_concurrent_sessions=user.max_concurrent_sessions,
            )
        return user

    async def create(self, email: str, password: str, *, is_admin: bool, max_concurrent_sessions: int) -> User:
        """An account that nobody has signed up for. Raises EmailTaken and Busy."""
        user = User(
            id=uuid4(),
            email=email,
            password_hash=await self._passwords.hash(password),
            is_admin=is_admin,
            max_concurrent_sessions=max_concurrent_sessions,
            created_at=self._clock.now(),
        )
        await self._users.add(user)
        _log.info("user.created", user_id=str(user.id), is_admin=is_admin)
        return user

    async def set_password(self, user_id: UUID, password: str) -> User:
        """A new password, with which everything that was signed in by the old one ends. Raises UserNotFound, Busy."""
        user, revision = await self._rows.set_password(user_id, await self._passwords.hash(password))
        self._revision.note_user(user_id, revision)
        _log.info("user.password_set", user_id=str(user_id))
        return user

    async def sign_out(self, user_id: UUID) -> tuple[User, Ended]:
        """End every login and API token of a user. Raises UserNotFound."""
        user, ended, revision = await self._rows.sign_out(user_id)
        self._revision.note_user(user_id, revision)
        _log.info("user.signed_out", user_id=str(user_id), logins=ended.logins, api_tokens=ended.api_tokens)
        return user, ended
