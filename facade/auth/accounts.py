"""Owns what people do with their own account: make it, sign in to it, change it."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid4

import structlog

from facade.auth.emails import InvalidEmail, normalize
from facade.auth.passwords import Passwords
from facade.auth.revision import Revision
from facade.auth.tokens import digest, new_token
from facade.clock import Clock
from facade.store.accounts import AccountRows
from facade.store.logins import LoginEnded
from facade.store.users import User, Users

__all__ = ["AccountDisabled", "Accounts", "WrongCredentials"]

_log = structlog.get_logger()


class WrongCredentials(Exception):
    """No account has this e-mail address, or its password is another; which of the two is nobody's business."""


class AccountDisabled(Exception):
    """The account is disabled. Only who knows its password learns of it; anybody else is told WrongCredentials."""


class Accounts:
    """Accounts and their passwords."""

    def __init__(
        self,
        users: Users,
        rows: AccountRows,
        passwords: Passwords,
        revision: Revision,
        clock: Clock,
        *,
        max_concurrent_sessions: int,
    ) -> None:
        self._users = users
        self._rows = rows
        self._revision = revision
        self._passwords = passwords
        self._clock = clock
        self._max_concurrent_sessions = max_concurrent_sessions

    async def sign_up(self, email: str, password: str) -> User:
        """A new account for an address in its normalized spelling. Raises EmailTaken, Busy."""
        user = User(
            id=uuid4(),
            email=email,
            password_hash=await self._passwords.hash(password),
            is_admin=False,
            max_concurrent_sessions=self._max_concurrent_sessions,
            created_at=self._clock.now(),
        )
        await self._users.add(user)
        _log.info("user.signup", user_id=str(user.id))
        return user

    async def find(self, email: str) -> User | None:
        """The account of an address, in any spelling."""
        try:
            return await self._users.by_email(normalize(email))
        except InvalidEmail:
            return None

    async def sign_in(self, user: User | None, password: str, *, known: bool = False) -> User:
        """The account, if this is its password. `known`: from a browser that has signed in to it before.

        Raises WrongCredentials, for no account as late as for another password, AccountDisabled, and Busy.
        """
        checked = await self._passwords.check(user.password_hash if user else None, password, known=known)
        if user is None or not checked.right:
            _log.info("user.login_refused", user_id=str(user.id) if user else None)
            raise WrongCredentials
        if user.is_disabled:
            _log.info("user.login_refused", user_id=str(user.id), reason="disabled")
            raise AccountDisabled
        if checked.outdated:
            anew = await self._passwords.hash(password, known=True)
            await self._users.replace_password_hash(user.id, user.password_hash, anew)
        _log.info("user.login", user_id=str(user.id))
        return user

    async def change(
        self,
        user_id: UUID,
        login_tokens: Iterable[str],
        current_password: str,
        *,
        email: str | None,
        password: str | None,
    ) -> tuple[User, str]:
        """Change one's own address, password, or both. Returns the account, and the token of the login that goes on.

        Every other login of the account ends; with the password, its API tokens end too. Raises WrongCredentials,
        EmailTaken, Busy, and LoginEnded when none of the logins that ask for it is left.
        """
        user = await self._users.by_id(user_id)
        if user is None:
            raise LoginEnded
        checked = await self._passwords.check(user.password_hash, current_password, known=True)
        if not checked.right:
            _log.info("user.change_refused", user_id=str(user_id))
            raise WrongCredentials
        new_hash = await self._passwords.hash(password, known=True) if password is not None else None
        token = new_token()
        changed, revision = await self._rows.change_own(
            user_id,
            [digest(login) for login in login_tokens],
            digest(token),
            self._clock.now(),
            email=email,
            password_hash=new_hash,
        )
        self._revision.note_user(user_id, revision)
        _log.info(
            "user.changed_own", user_id=str(user_id), email=email is not None, password_changed=password is not None
        )
        return changed, token
