"""Owns THE route table of the facade: verb, path, handler, who may call, and whether the origin guard applies.

GET routes answer HEAD too. The web UI's files follow the table; they are for anyone (see `facade.site`).
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from facade.auth.handlers import AuthHandlers
from facade.health import FacadeHealth
from facade.middleware.access import Access, Handler, Who
from facade.sessions.handlers import SessionHandlers
from facade.sessions.proxy import SessionProxy

__all__ = ["Handlers", "Route", "mount", "table"]


@dataclass(frozen=True, slots=True)
class Handlers:
    """Everything that the table names."""

    auth: AuthHandlers
    sessions: SessionHandlers
    proxy: SessionProxy
    health: FacadeHealth


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the table. `changes` state, so requests of foreign origins are refused."""

    verb: str
    path: str
    handler: Handler
    who: Who
    changes: bool


def table(do: Handlers) -> tuple[Route, ...]:
    # fmt: off
    return (
        Route("GET",  "/healthz",                     do.health.get,       Who.ANYONE,    changes=False),
        Route("POST", "/api/v1/auth/signup",          do.auth.signup,      Who.ANYONE,    changes=True),
        Route("POST", "/api/v1/auth/login",           do.auth.login,       Who.ANYONE,    changes=True),
        Route("POST", "/api/v1/auth/logout",          do.auth.logout,      Who.ANYONE,    changes=True),
        Route("GET",  "/api/v1/auth/session-proxy",   do.proxy.authorize,  Who.CADDY,     changes=False),
        Route("GET",  "/api/v1/me",                   do.auth.me,          Who.SIGNED_IN, changes=False),
        Route("POST", "/api/v1/sessions",             do.sessions.create,  Who.SIGNED_IN, changes=True),
        Route("GET",  "/api/v1/sessions",             do.sessions.page,    Who.SIGNED_IN, changes=False),
        Route("GET",  "/api/v1/sessions/current",     do.sessions.current, Who.SIGNED_IN, changes=False),
        Route("GET",  "/api/v1/sessions/{id}",        do.sessions.get,     Who.SIGNED_IN, changes=False),
        Route("POST", "/api/v1/sessions/{id}/stop",   do.sessions.stop,    Who.SIGNED_IN, changes=True),
    )
    # fmt: on


def mount(app: web.Application, routes: tuple[Route, ...], access: Access) -> None:
    """Register every route behind the checks that the table asks for."""
    for route in routes:
        handler = access.guard(route.handler, route.who, changes=route.changes)
        for verb in ("GET", "HEAD") if route.verb == "GET" else (route.verb,):
            app.router.add_route(verb, route.path, handler)
