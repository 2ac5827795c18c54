"""Owns what admins see of accounts over the public API, and the bodies and queries of their endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from facade.auth import emails
from facade.problems import Problem, validation
from facade.schemas.paging import Paging
from facade.schemas.sessions import SessionQuery
from facade.store.accounts import Changes
from facade.store.users import User, UserFilter

__all__ = ["AdminSessionQuery", "ChangeUser", "UserQuery", "UserView", "nothing_to_change"]

_EmailStart = Annotated[
    str, msgspec.Meta(max_length=emails.MAX_LENGTH, description="Only addresses that begin so, in any case.")
]
_Sessions = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class UserQuery(Paging, frozen=True, kw_only=True):
    """Query of accounts."""

    email: _EmailStart | None = None
    is_admin: Annotated[bool, msgspec.Meta(description="Only admins, or only others.")] | None = None
    is_disabled: Annotated[bool, msgspec.Meta(description="Only disabled accounts, or only others.")] | None = None

    def filter(self) -> UserFilter:
        """Which accounts are meant, in the spelling in which addresses are kept."""
        email = None if self.email is None else emails.beginning(self.email)
        return UserFilter(email=email, is_admin=self.is_admin, is_disabled=self.is_disabled)


class AdminSessionQuery(SessionQuery, frozen=True, kw_only=True):
    """Query of everybody's sessions."""

    user_id: Annotated[UUID, msgspec.Meta(description="Only this user's.")] | None = None


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """An account as admins see it."""

    user_id: UUID
    email: str
    is_admin: bool
    is_disabled: bool
    max_concurrent_sessions: int
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> UserView:
        return cls(
            user_id=user.id,
            email=user.email,
            is_admin=user.is_admin,
            is_disabled=user.is_disabled,
            max_concurrent_sessions=user.max_concurrent_sessions,
            created_at=user.created_at,
        )


class ChangeUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of changing an account: what is left out stays as it is."""

    is_admin: bool | msgspec.UnsetType = msgspec.UNSET
    is_disabled: bool | msgspec.UnsetType = msgspec.UNSET
    max_concurrent_sessions: _Sessions | msgspec.UnsetType = msgspec.UNSET

    def changes(self) -> Changes:
        """Raises Problem 422 where there are none."""
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not msgspec.UNSET}
        if not given:
            raise nothing_to_change()
        return Changes(**given)


def nothing_to_change() -> Problem:
    return validation((["body"], "Nothing to change is given.", "missing"))
