"""Owns the cookie's token: how it is made, what it looks like, and the digest that is all we keep of it."""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["TOKEN_PATTERN", "digest", "new_token"]

_TOKEN_BYTES = 32
TOKEN_PATTERN = r"[A-Za-z0-9_-]{43}"  # noqa: S105  # the form of a token, not one: 32 bytes in base64url without padding


def new_token() -> str:
    """256 unguessable bits, safe in a cookie."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def digest(token: str) -> bytes:
    """What is stored and compared. Plain SHA-256 suffices, for a random token cannot be guessed from it."""
    return hashlib.sha256(token.encode("ascii")).digest()
