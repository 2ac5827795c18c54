"""Owns the user as the public API tells it, and the bodies of signing up and in."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from facade.auth import emails, passwords
from facade.auth.principals import Principal
from facade.problems import validation
from facade.schemas.admin import nothing_to_change
from facade.store.users import User

__all__ = ["ChangeMe", "Credentials", "Identity", "checked_change", "checked_credentials"]


# What the document says beyond what the type holds: these are checked apart, and told in words of their own.
EmailText = Annotated[
    str,
    msgspec.Meta(
        description="Kept in lower case.",
        examples=["ada@example.org"],
        extra_json_schema={"format": "email", "maxLength": emails.MAX_LENGTH},
    ),
]
PasswordText = Annotated[
    str,
    msgspec.Meta(
        description="Characters of any kind.",
        extra_json_schema={
            "format": "password",
            "minLength": passwords.MIN_LENGTH,
            "maxLength": passwords.MAX_LENGTH,
        },
    ),
]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of signup and login."""

    email: EmailText
    password: PasswordText

    def __repr__(self) -> str:
        return "Credentials(…)"


class ChangeMe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of changing one's own account: a new address, a new password, or both, and the present password."""

    current_password: str
    email: str | msgspec.UnsetType = msgspec.UNSET
    password: str | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return "ChangeMe(…)"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in."""

    user_id: UUID
    email: str
    is_admin: bool
    max_concurrent_sessions: int

    @classmethod
    def of(cls, user: User | Principal) -> Identity:
        return cls(
            user_id=user.id if isinstance(user, User) else user.user_id,
            email=user.email,
            is_admin=user.is_admin,
            max_concurrent_sessions=user.max_concurrent_sessions,
        )


def checked_credentials(credentials: Credentials) -> tuple[str, str]:
    """Normalized e-mail address and password for a new account. Raises Problem 422 that names every fault."""
    email = _normalized(credentials.email, credentials.password)
    assert email is not None
    return email, credentials.password


def checked_change(change: ChangeMe) -> tuple[str | None, str | None]:
    """Normalized e-mail address and password, None for what stays. Raises Problem 422 that names every fault."""
    email = None if change.email is msgspec.UNSET else change.email
    password = None if change.password is msgspec.UNSET else change.password
    if email is None and password is None:
        raise nothing_to_change()
    return _normalized(email, password), password


def _normalized(email: str | None, password: str | None) -> str | None:
    """The address in its one spelling, where there is one. Raises Problem 422 that names every fault of both."""
    faults: list[tuple[list[str], str, str]] = []
    if email is not None:
        try:
            email = emails.normalize(email)
        except emails.InvalidEmail as error:
            faults.append((["body", "email"], str(error), "value_error"))
    if password is not None and not passwords.acceptable(password):
        faults.append((["body", "password"], passwords.ACCEPTABLE, "value_error"))
    if faults:
        raise validation(*faults)
    return email
