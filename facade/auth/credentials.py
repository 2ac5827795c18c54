"""Owns what logins and API tokens have in common for those who check them, and what a store of them offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from facade.auth.principals import Principal

__all__ = ["Credential", "CredentialRows"]


@dataclass(frozen=True, slots=True)
class Credential:
    """A login or an API token as the database knows it, and whose it is. `ends_at` is None where none is recorded."""

    digest: bytes
    principal: Principal
    created_at: datetime
    last_used_at: datetime | None
    ends_at: datetime | None = None


class CredentialRows(Protocol):
    """Credentials of one kind in the database, found by the digest of their secret."""

    async def find(self, digests: Collection[bytes]) -> list[Credential]:
        """Those that exist. A disabled user's do not."""
        ...

    async def touch(self, used: Mapping[bytes, datetime]) -> None:
        """Write down when they were last used; a later time that is already there stays."""
        ...
