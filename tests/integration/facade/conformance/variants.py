"""The requests that each column of the table stands for."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tests.integration.facade.conformance.recipes import Recipe, World
from tests.integration.facade.conftest import SITE

__all__ = ["BODY_MAX_BYTES", "Sent", "good", "variants"]

BODY_MAX_BYTES = 4096
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE")

BAD_ORIGINS = (
    "https://evil.example",
    "null",
    f"http://{SITE}",
    f"https://{SITE}:8443",
    f"https://{SITE}.evil.example",
    f"https://evil-{SITE}",
    f"https://{SITE.upper()}",
    f"https://{SITE}/",
    "",
)
TENANTS = (f"https://s-abcd2345.{SITE}", f"https://s-abcd2345.{SITE}:443", f"http://s-abcd2345.{SITE}")
BAD_IDS = (
    "x",
    "0",
    "00000000-0000-0000-0000-00000000000",
    "{00000000-0000-0000-0000-000000000000}",
    "%00",
    "%F0%9F%90%9B",
)


@dataclass(frozen=True)
class Sent:
    """A request but for its caller, and where a refusal has to say that it is wrong."""

    verb: str
    path: str
    query: str = ""
    host: str = SITE
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    locations: tuple[tuple[str, ...], ...] = field(default=())

    def told(self, *headers: tuple[str, str], **changes: Any) -> Sent:
        return replace(self, headers=(*self.headers, *headers), **changes)


def good(verb: str, path: str, recipe: Recipe, world: World) -> Sent:
    """The request as it should be."""
    body = recipe.body(world) if recipe.body else None
    named = path.replace("{id}", recipe.path(world)) if recipe.path else path
    sent = Sent(verb, named, host=recipe.host(world))
    return sent if body is None else _json(sent, body)


def _typed(sent: Sent, body: bytes, **changes: Any) -> Sent:
    return sent.told(("Content-Type", "application/json"), body=body, **changes)


def _json(sent: Sent, body: dict[str, Any], **changes: Any) -> Sent:
    return _typed(sent, msgspec.json.encode(body), **changes)


@dataclass(frozen=True)
class Case:
    """A route and a world to ask it in. `plain` is the good request without body and headers, `text` its body."""

    path: str
    recipe: Recipe
    world: World
    allow: str
    sent: Sent

    @property
    def fields(self) -> dict[str, Any]:
        return self.recipe.body(self.world) if self.recipe.body else {}

    @property
    def text(self) -> bytes:
        return self.sent.body or b"{}"

    @property
    def plain(self) -> Sent:
        return replace(self.sent, headers=(), body=None)


def variants(column: str, where: tuple[str, str], recipe: Recipe, world: World, allow: str) -> list[Sent]:
    """Every request of the column; none where the route has nothing to get wrong there."""
    return list(_COLUMNS[column](Case(where[1], recipe, world, allow, good(*where, recipe, world))))


def _good(case: Case) -> Iterator[Sent]:
    yield case.sent
    yield case.sent.told(("Origin", f"https://{SITE}"))
    yield case.sent.told(("Origin", f"https://api.{SITE}"), ("Sec-Fetch-Site", "same-site"))
    yield case.sent.told(("Sec-Fetch-Site", "same-origin"))


def _absent(case: Case) -> Iterator[Sent]:
    if case.recipe.absent:
        yield good(case.sent.verb, case.path, case.recipe.absent(case.world), case.world)


def _badid(case: Case) -> Iterator[Sent]:
    for bad in BAD_IDS if case.recipe.path else ():
        yield replace(case.sent, path=case.path.replace("{id}", bad), locations=(("path", "id"),))


def _limit(case: Case) -> Iterator[Sent]:
    for text in ("0", "501", "-1", "x", "", "1.5", "9" * 30, "1&limit=1"):
        yield replace(case.sent, query=f"limit={text}")


def _cursor(case: Case) -> Iterator[Sent]:
    for text in ("x", "", "bnVsbA", "%00", "a&cursor=b"):
        yield replace(case.sent, query=f"cursor={text}")


def _filter(case: Case) -> Iterator[Sent]:
    for text in case.recipe.bad_filters:
        yield replace(case.sent, query=text, locations=(("query", text.partition("=")[0]),))


def _param(case: Case) -> Iterator[Sent]:
    yield replace(case.sent, query="limits=5", locations=(("query", "limits"),))
    yield replace(case.sent, query="a=1&b", locations=(("query", "a"), ("query", "b")))


def _not_json(case: Case) -> Iterator[Sent]:
    for bad in (b"{", b"{]", b"\xff", b"nul", case.text + b"x"):
        yield _typed(case.plain, bad, locations=(("body",),))


def _large(case: Case) -> Iterator[Sent]:
    yield _json(case.plain, {**case.fields, "padding": "x" * BODY_MAX_BYTES})
    yield _typed(case.plain, b" " * BODY_MAX_BYTES + case.text)


def _media(case: Case) -> Iterator[Sent]:
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/problem+json"):
        yield case.plain.told(("Content-Type", media), body=case.text)


def _coding(case: Case) -> Iterator[Sent]:
    yield _typed(case.plain.told(("Content-Encoding", "gzip")), gzip.compress(case.text))
    yield _typed(case.plain.told(("Content-Encoding", "br")), case.text)


def _type(case: Case) -> Iterator[Sent]:
    for name, values in case.recipe.wrong.items():
        for value in values:
            yield _json(case.plain, {**case.fields, name: value}, locations=(("body", name),))


def _unknown(case: Case) -> Iterator[Sent]:
    for name in ("colour", "__proto__") if case.recipe.body else ():
        yield _json(case.plain, {**case.fields, name: {}}, locations=(("body", name),))


def _method(case: Case) -> Iterator[Sent]:
    for method in METHODS:
        if method not in case.allow.split(","):
            yield replace(case.plain, verb=method)


def _origin(case: Case) -> Iterator[Sent]:
    yield from (case.sent.told(("Origin", origin)) for origin in BAD_ORIGINS)
    yield case.sent.told(("Origin", f"https://{SITE}"), ("Origin", "https://evil.example"))


def _tenant(case: Case) -> Iterator[Sent]:
    yield from (case.sent.told(("Origin", origin)) for origin in TENANTS)


def _site(case: Case) -> Iterator[Sent]:
    yield from (case.sent.told(("Sec-Fetch-Site", site)) for site in ("cross-site", "same-site", "elsewhere"))


def _host(case: Case) -> Iterator[Sent]:
    yield replace(case.sent, host=case.recipe.elsewhere)


_COLUMNS: dict[str, Callable[[Case], Iterator[Sent]]] = {
    "good": _good,
    "absent": _absent,
    "badid": _badid,
    "limit": _limit,
    "cursor": _cursor,
    "filter": _filter,
    "param": _param,
    "json": _not_json,
    "large": _large,
    "media": _media,
    "coding": _coding,
    "type": _type,
    "unknown": _unknown,
    "method": _method,
    "origin": _origin,
    "tenant": _tenant,
    "site": _site,
    "host": _host,
}
