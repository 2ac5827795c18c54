"""Owns the `users.*` methods of the operator socket; translates only."""

from __future__ import annotations

from uuid import UUID

from facade.auth import emails, passwords
from facade.auth.administration import Administration
from facade.auth.passwords import Busy
from facade.store.accounts import Changes, LastAdmin
from facade.store.failures import DatabaseUnavailable
from facade.store.users import EmailTaken, User, UserFilter, Users
from medforged.calls.server import CallRefused
from medforged.contract import users as wire
from medforged.contract.errors import ErrorCode

__all__ = ["UserHandlers", "code_of"]

_CODES: dict[type[Exception], ErrorCode] = {Busy: ErrorCode.BUSY, DatabaseUnavailable: ErrorCode.HOST_FAILED}


class UserHandlers:
    """The `users.*` methods. `max_concurrent_sessions` is what a new account gets unless said."""

    def __init__(self, administration: Administration, users: Users, *, max_concurrent_sessions: int) -> None:
        self._administration = administration
        self._users = users
        self._max_concurrent_sessions = max_concurrent_sessions

    async def list(self, params: wire.ListUsers) -> wire.UserPage:
        before = None
        if (params.before_created_at is None) is not (params.before_id is None):
            raise _bad("before_created_at and before_id go together; give both or neither")
        if params.before_created_at is not None and params.before_id is not None:
            if params.before_created_at.tzinfo is None:
                raise _bad("before_created_at has no time zone; write it in UTC with a Z")
            before = (params.before_created_at, params.before_id)
        email = emails.beginning(params.email) if params.email is not None else None
        wanted = UserFilter(email=email, is_admin=params.is_admin, is_disabled=params.is_disabled)
        found, has_more = await self._administration.page(wanted, before, params.limit)
        return wire.UserPage(users=[_wire(user) for user in found], has_more=has_more)

    async def create(self, params: wire.CreateUser) -> wire.UserResult:
        email, limit = _address(params.email), params.max_concurrent_sessions
        try:
            user = await self._administration.create(
                email,
                _acceptable(params.password),
                is_admin=params.is_admin,
                max_concurrent_sessions=self._max_concurrent_sessions if limit is None else limit,
            )
        except EmailTaken as error:
            raise CallRefused(
                ErrorCode.EMAIL_TAKEN,
                f"cannot create an account for {email}: there is one; medforgectl users set changes it",
            ) from error
        return wire.UserResult(user=_wire(user))

    async def change(self, params: wire.ChangeUser) -> wire.UserResult:
        changes = Changes(
            is_admin=params.is_admin,
            is_disabled=params.is_disabled,
            max_concurrent_sessions=params.max_concurrent_sessions,
        )
        user_id = await self._find(params.user)
        try:
            user = await self._administration.change(user_id, changes, actor=None)
        except LastAdmin as error:
            raise CallRefused(
                ErrorCode.LAST_ADMIN,
                f"cannot demote or disable {params.user}: nobody else is an admin; make another one first",
            ) from error
        return wire.UserResult(user=_wire(user))

    async def set_password(self, params: wire.SetPassword) -> wire.UserResult:
        password = _acceptable(params.password)
        user = await self._administration.set_password(await self._find(params.user), password)
        return wire.UserResult(user=_wire(user))

    async def sign_out(self, params: wire.UserRef) -> wire.SignedOut:
        user, ended = await self._administration.sign_out(await self._find(params.user))
        return wire.SignedOut(user=_wire(user), logins=ended.logins, api_tokens=ended.api_tokens)

    async def _find(self, named: str) -> UUID:
        """The account that an id or an address means. Raises CallRefused."""
        if "@" in named:
            user = await self._users.by_email(_address(named))
            if user is None:
                raise _unknown(named)
            return user.id
        try:
            user_id = UUID(named)
        except ValueError as error:
            raise _bad(f"{named[:80]!r} is neither an account's id nor its e-mail address") from error
        if await self._users.by_id(user_id) is None:
            raise _unknown(named)
        return user_id


def code_of(error: Exception) -> ErrorCode | None:
    """The code that an error stands for; None for a defect."""
    return _CODES.get(type(error))


def _unknown(named: str) -> CallRefused:
    return CallRefused(
        ErrorCode.USER_NOT_FOUND, f"cannot find {named}: no account is called so; medforgectl users ls lists them"
    )


def _bad(message: str) -> CallRefused:
    return CallRefused(ErrorCode.BAD_REQUEST, message)


def _address(text: str) -> str:
    try:
        return emails.normalize(text)
    except emails.InvalidEmail as error:
        raise _bad(f"cannot take {text[:80]!r} for an e-mail address: {error}") from error


def _acceptable(password: str) -> str:
    if not passwords.acceptable(password):
        raise _bad(f"cannot take this password. {passwords.ACCEPTABLE}")
    return password


def _wire(user: User) -> wire.User:
    return wire.User(
        id=user.id,
        email=user.email,
        is_admin=user.is_admin,
        is_disabled=user.is_disabled,
        max_concurrent_sessions=user.max_concurrent_sessions,
        created_at=user.created_at,
    )
