"""Owns the API token as the public API tells it, and the body of making one."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from facade.auth.principals import Scope
from facade.problems import Problem, validation
from facade.store.api_tokens import ApiToken

__all__ = ["ApiTokenView", "CreateApiToken", "NewApiToken", "checked_api_token", "unreadable_name"]

_NAME_MAX_LENGTH = 100
_DEFAULT_DAYS = 90
_MAX_DAYS = 366


class CreateApiToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of making an API token: a name for people, what it is good for, and for how many days."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=_NAME_MAX_LENGTH)]
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1, max_length=len(Scope))]
    expires_in_days: Annotated[int, msgspec.Meta(ge=1, le=_MAX_DAYS)] = _DEFAULT_DAYS


class ApiTokenView(msgspec.Struct, frozen=True, kw_only=True):
    """An API token without its secret. `last_used_at` is up to a minute late, null for one that was never used."""

    id: UUID
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, token: ApiToken) -> ApiTokenView:
        return cls(
            id=token.id,
            name=token.name,
            scopes=[scope for scope in Scope if scope in token.scopes],
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )


class NewApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was just made. `token` is its secret, told this once."""

    token: str
    api_token: ApiTokenView

    def __repr__(self) -> str:
        return f"NewApiToken({self.api_token.id}, …)"


def checked_api_token(wanted: CreateApiToken) -> CreateApiToken:
    """The body, if its name can be read by people. Raises Problem 422."""
    hidden = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in wanted.name)
    if hidden or not wanted.name.strip():
        raise unreadable_name()
    return wanted


def unreadable_name() -> Problem:
    return validation((["body", "name"], "A name consists of characters that can be seen.", "value_error"))
