"""Owns reading the parts of a path that name a thing."""

from __future__ import annotations

import re
from uuid import UUID

from aiohttp import web

from facade.problems import Problem, validation

__all__ = ["invalid_id", "read_id"]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def read_id(request: web.Request) -> UUID:
    """The `{id}` of the path. Raises Problem 422 for what is not a UUID in its usual spelling."""
    text = request.match_info["id"]
    if not _UUID.fullmatch(text):
        raise invalid_id()
    return UUID(text)


def invalid_id() -> Problem:
    return validation((["path", "id"], "An id is a UUID.", "uuid_parsing"))
