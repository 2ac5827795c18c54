"""Owns the user as the public API tells it, and the bodies of signing up and in."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from facade.auth import emails, passwords
from facade.auth.principals import Principal
from facade.problems import validation
from facade.store.users import User

__all__ = ["Credentials", "Identity", "checked_credentials"]


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
    faults: list[tuple[list[str], str, str]] = []
    email = ""
    try:
        email = emails.normalize(credentials.email)
    except emails.InvalidEmail as error:
        faults.append((["body", "email"], str(error), "value_error"))
    if not passwords.acceptable(credentials.password):
        told = f"A password has {passwords.MIN_LENGTH} to {passwords.MAX_LENGTH} characters."
        faults.append((["body", "password"], told, "value_error"))
    if faults:
        raise validation(*faults)
    return email, credentials.password
