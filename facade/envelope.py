"""Owns the form of every successful answer: `{"data": …, "meta": …}`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from facade.keys import request_id_of

__all__ = ["Meta", "Page", "success"]

API_VERSION = "v1.0"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Where a listing stands; `next_cursor` is null on its last page."""

    limit: int
    next_cursor: str | None
    has_more: bool


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with every good answer. The last three are null in answers that are not pages of a listing."""

    request_id: str
    api_version: str
    timestamp: datetime
    limit: int | None
    next_cursor: str | None
    has_more: bool | None


def success(request: web.Request, data: Any, *, status: int = 200, page: Page | None = None) -> web.Response:
    """The data in its envelope; anything that msgspec can encode."""
    meta = Meta(
        request_id=request_id_of(request),
        api_version=API_VERSION,
        timestamp=datetime.now(UTC),
        limit=page.limit if page else None,
        next_cursor=page.next_cursor if page else None,
        has_more=page.has_more if page else None,
    )
    return web.Response(
        body=msgspec.json.encode({"data": data, "meta": meta}), status=status, content_type="application/json"
    )
