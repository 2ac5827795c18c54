"""Owns serving the OpenAPI document and its page, made once at start; the same bytes for everyone."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from aiohttp import web

from facade.openapi.page import CONTENT_SECURITY_POLICY, page

__all__ = ["OpenApiHandlers"]


class OpenApiHandlers:
    """`publish` has to be called before the first request: the table that names these handlers is what they tell."""

    def __init__(self) -> None:
        self._document = b""
        self._page = b""

    def publish(self, document: dict[str, Any]) -> None:
        self._document = msgspec.json.encode(document)
        self._page = page(document).encode()

    async def document(self, request: web.Request) -> web.StreamResponse:
        return _unless_known(request, self._document, "application/json", {})

    async def page(self, request: web.Request) -> web.StreamResponse:
        return _unless_known(request, self._page, "text/html", {"Content-Security-Policy": CONTENT_SECURITY_POLICY})


def _unless_known(request: web.Request, body: bytes, content_type: str, headers: dict[str, str]) -> web.Response:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**headers, "ETag": etag, "Cache-Control": "no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if etag in known:
        return web.Response(status=304, headers=headers)
    charset = "utf-8" if content_type.startswith("text/") else None
    return web.Response(body=body, headers=headers, content_type=content_type, charset=charset)
