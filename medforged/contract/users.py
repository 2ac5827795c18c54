"""Owns the account as operators see it on the facade's operator socket, and the parameters and results of `users.*`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

__all__ = [
    "ChangeUser",
    "CreateUser",
    "ListUsers",
    "SetPassword",
    "SignedOut",
    "User",
    "UserPage",
    "UserRef",
    "UserResult",
]

_Sessions = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_Address = Annotated[str, msgspec.Meta(max_length=320)]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account. A disabled one cannot sign in."""

    id: UUID
    email: str
    is_admin: bool
    is_disabled: bool
    max_concurrent_sessions: int
    created_at: datetime


class ListUsers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Newest first. `email` is how the address begins; None leaves a thing open.

    `before_created_at` and `before_id` go together: the last account already seen.
    """

    email: _Address | None = None
    is_admin: bool | None = None
    is_disabled: bool | None = None
    before_created_at: datetime | None = None
    before_id: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class UserPage(msgspec.Struct, frozen=True, kw_only=True):
    users: list[User]
    has_more: bool


class CreateUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `max_concurrent_sessions` the account may have as many sessions as one that somebody signs up for."""

    email: _Address
    password: str
    is_admin: bool = False
    max_concurrent_sessions: _Sessions | None = None

    def __repr__(self) -> str:
        return "CreateUser(…)"


class ChangeUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`user` is an id or an address; None leaves a thing as it is."""

    user: _Address
    is_admin: bool | None = None
    is_disabled: bool | None = None
    max_concurrent_sessions: _Sessions | None = None


class SetPassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`user` is an id or an address."""

    user: _Address
    password: str

    def __repr__(self) -> str:
        return "SetPassword(…)"


class UserRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`user` is an id or an address."""

    user: _Address


class UserResult(msgspec.Struct, frozen=True, kw_only=True):
    user: User


class SignedOut(msgspec.Struct, frozen=True, kw_only=True):
    """How many logins and API tokens of the account have ended."""

    user: User
    logins: int
    api_tokens: int
