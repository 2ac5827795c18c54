"""Owns what a route of the API states about itself, and registering routes behind the checks they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from facade.auth.principals import Scope
from facade.middleware.access import Access, Handler, Who
from facade.problems import Problem

__all__ = ["Answer", "Route", "mount"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers when it does what it was asked to: `data` of this type, in the envelope unless said.

    A `type` of None is an answer without a body, and `str` a text of the media type. `headers` come on top of those
    that every answer has.
    """

    type: Any
    headers: tuple[str, ...] = ()
    enveloped: bool = True
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the table. `changes` state, so requests of foreign origins are refused.

    `scope` is what an API token must have; without one no token may call. `body` and `query` are the types that the
    handler reads. `answers` are the good ones by status, each a type of `data` or an Answer. `problems` are those that
    the handler itself finds; what the other columns entail is added by `facade.openapi.entailed`.
    """

    verb: str
    path: str
    handler: Handler
    who: Who
    changes: bool
    summary: str = field(kw_only=True)
    answers: Mapping[int, Any] = field(kw_only=True)
    scope: Scope | None = field(kw_only=True, default=None)
    body: type[msgspec.Struct] | None = field(kw_only=True, default=None)
    query: type[msgspec.Struct] | None = field(kw_only=True, default=None)
    problems: tuple[Problem, ...] = field(kw_only=True, default=())

    def answer(self, status: int) -> Answer:
        """The good answer of this status, as the table means it."""
        stated = self.answers[status]
        return stated if isinstance(stated, Answer) else Answer(stated)


def mount(app: web.Application, routes: Iterable[Route], access: Access) -> None:
    """Register every route behind the checks that the table asks for. GET answers HEAD too, every path OPTIONS."""
    verbs: dict[str, list[str]] = {}
    for route in routes:
        # What stands in an id's place is the handler's to judge, whatever characters it has.
        path = re.sub(r"{(\w+)}", r"{\1:[^/]+}", route.path)
        handler = access.guard(route.handler, route.who, changes=route.changes, scope=route.scope)
        for verb in ("GET", "HEAD") if route.verb == "GET" else (route.verb,):
            app.router.add_route(verb, path, handler)
            verbs.setdefault(path, []).append(verb)
    for path, known in verbs.items():
        app.router.add_route("OPTIONS", path, access.guard(_options([*known, "OPTIONS"]), Who.ANYONE, changes=False))


def _options(verbs: list[str]) -> Handler:
    """RFC 9110 section 9.3.7, and nothing of CORS: pages of other origins learn that they may not call."""
    allow = ",".join(sorted(verbs))

    async def options(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers={"Allow": allow})

    return options
