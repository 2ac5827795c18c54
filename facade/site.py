"""Owns serving the web UI's files: read once at start, found by exact path, allowed to load each other alone."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from facade.hosts import Hosts
from facade.problems import not_found

__all__ = ["Site"]

_log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# Names that carry a digest of their content, as bundlers write them, can be kept for good.
_FINGERPRINTED = re.compile(r"[.-](?=[a-f]*[0-9])[0-9a-f]{8,}\.[a-z0-9]+$")
_FILE_MAX_BYTES = 16 * 1024**2
# Not left to the machine's own tables, which differ.
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}

# What else keeps browsers strict, every answer has (facade/middleware/headers.py).
_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    charset: str | None
    etag: str
    cache_control: str


class Site:
    """`index.html` is `/`, another page `name.html` is `/name`, everything else has its own path."""

    def __init__(self, root: Path | None, hosts: Hosts, *, any_host: bool) -> None:
        self._hosts = hosts
        self._any_host = any_host
        self._files = _read(root) if root is not None else {}

    def mount(self, app: web.Application) -> None:
        for path in self._files:
            app.router.add_get(path, self.get)

    async def get(self, request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        file = self._files.get(request.path)
        if file is None or not self._serves(host):
            raise not_found()
        if request.path == "/login" and not self._hosts.may_follow(request.query.get("next", "/")):
            # The page follows `next` after signing in: what leads elsewhere does not get that far.
            return web.Response(status=302, headers={"Location": "/login"})
        headers = {"Content-Security-Policy": _POLICY, "ETag": file.etag, "Cache-Control": file.cache_control}
        if file.etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers=headers, content_type=file.content_type, charset=file.charset)

    def _serves(self, host: str) -> bool:
        if self._any_host:
            return self._hosts.session_slug(host) is None
        return self._hosts.is_site(host)


def _read(root: Path) -> dict[str, _File]:
    """Every file under the root, by the path of its URL. Hidden files and links out of the root are left out."""
    if not root.is_dir():
        _log.warning("site.missing", web_root=str(root), remedy="install the web UI there or set site.web_root")
        return {}
    files: dict[str, _File] = {}
    top = root.resolve()
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if not path.is_file() or not all(_NAME.fullmatch(part) for part in parts):
            continue
        if not path.resolve().is_relative_to(top) or path.stat().st_size > _FILE_MAX_BYTES:
            _log.warning("site.left_out", path="/".join(parts))
            continue
        files[_url("/".join(parts))] = _load(path)
    return files


def _url(name: str) -> str:
    if name == "index.html":
        return "/"
    return "/" + name.removesuffix(".html")


def _load(path: Path) -> _File:
    body = path.read_bytes()
    content_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = content_type.startswith("text/") or content_type in ("application/json", "image/svg+xml")
    lasting = _FINGERPRINTED.search(path.name) is not None and path.suffix != ".html"
    return _File(
        body=body,
        content_type=content_type,
        charset="utf-8" if text else None,
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        cache_control="public, max-age=31536000, immutable" if lasting else "no-cache",
    )
