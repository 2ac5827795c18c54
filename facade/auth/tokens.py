"""Owns secrets that we make: how they are made, what they look like, and the digest that is all we keep of one."""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["API_TOKEN_PATTERN", "TOKEN_LENGTH", "TOKEN_PATTERN", "digest", "new_api_token", "new_token"]

_TOKEN_BYTES = 32
# 32 bytes in base64url without padding.
TOKEN_LENGTH = 43
TOKEN_PATTERN = rf"[A-Za-z0-9_-]{{{TOKEN_LENGTH}}}"
# With a beginning of its own, so that one that was published by mistake is found by people and by scanners.
_API_PREFIX = "mft_"
API_TOKEN_PATTERN = _API_PREFIX + TOKEN_PATTERN


def new_token() -> str:
    """A login's: 256 unguessable bits, safe in a cookie."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def new_api_token() -> str:
    """An API token's: as unguessable, and told from a login's by its beginning."""
    return _API_PREFIX + new_token()


def digest(token: str) -> bytes:
    """What is stored and compared. Plain SHA-256 suffices, for a random token cannot be guessed from it."""
    return hashlib.sha256(token.encode("ascii")).digest()
