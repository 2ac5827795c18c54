"""What a good request of each route is, and the values that its fields and filters must not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from medforged.contract.sessions import Session
from tests.integration.facade.conftest import PASSWORD, SITE, Person

__all__ = ["ADMIN_SCOPES", "RECIPES", "SCOPES", "Caller", "Recipe", "World"]

SCOPES = ("account:read", "sessions:read", "sessions:write")
ADMIN_SCOPES = ("admin:read", "admin:write")

ABSENT = UUID(int=0xABCD)


@dataclass(frozen=True)
class Caller:
    """What a request carries to say who is asking."""

    cookie: str | None = None
    bearer: str | None = None


@dataclass(frozen=True)
class World:
    """Who and what there is in one request's world; the owner has the session and the API token."""

    owner: Person
    caller: Caller
    session: Session | None = None
    api_token: str | None = None
    """Its id."""


@dataclass(frozen=True)
class Recipe:
    """`session`: the owner has a running one. `api_token`: they have one that is not the caller's.

    `wrong`: by field, values of other types or beyond their bounds.
    """

    body: Callable[[World], dict[str, Any]] | None = None
    session: bool = False
    api_token: bool = False
    scope: str | None = None
    """What an API token needs."""
    wrong: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    bad_filters: tuple[str, ...] = ()
    path: Callable[[World], str] | None = None
    """The id that the path names; for routes with an {id}."""
    host: Callable[[World], str] = lambda _world: SITE
    absent: Callable[[World], Recipe] | None = None
    """The same request for something that is not there."""
    elsewhere: str = f"s-abcd2345.{SITE}"
    """A host name under which the route is not."""


NOT_TEXT: tuple[Any, ...] = (7, True, None, [], {}, ["a"])


def _of_session(**more: Any) -> Recipe:
    def session_id(world: World) -> str:
        assert world.session is not None
        return str(world.session.id)

    return Recipe(
        session=True, path=session_id, absent=lambda _world: Recipe(path=lambda _: str(ABSENT), **more), **more
    )


def _credentials(email: Callable[[World], str]) -> Callable[[World], dict[str, Any]]:
    return lambda world: {"email": email(world), "password": PASSWORD}


def _session_host(world: World) -> str:
    assert world.session is not None
    return f"s-{world.session.slug}.{SITE}"


RECIPES: dict[tuple[str, str], Recipe] = {
    ("GET", "/healthz"): Recipe(),
    ("GET", "/api/v1/openapi.json"): Recipe(),
    ("GET", "/docs"): Recipe(),
    ("POST", "/api/v1/auth/signup"): Recipe(
        body=_credentials(lambda _world: f"{uuid4().hex}@example.org"),
        wrong={"email": NOT_TEXT, "password": NOT_TEXT},
    ),
    ("POST", "/api/v1/auth/login"): Recipe(
        body=_credentials(lambda world: world.owner.email),
        wrong={"email": NOT_TEXT, "password": NOT_TEXT},
    ),
    ("POST", "/api/v1/auth/logout"): Recipe(body=lambda _world: {}),
    ("GET", "/api/v1/auth/session-proxy"): Recipe(
        session=True,
        host=_session_host,
        absent=lambda _world: Recipe(host=lambda _: f"s-zzzzzzzz.{SITE}"),
        elsewhere=SITE,
    ),
    ("GET", "/api/v1/me"): Recipe(scope="account:read"),
    ("PATCH", "/api/v1/me"): Recipe(
        body=lambda _world: {"current_password": PASSWORD, "email": f"{uuid4().hex}@example.org"},
        wrong={"current_password": NOT_TEXT, "email": (*NOT_TEXT, "x", "x@"), "password": (*NOT_TEXT, "short")},
    ),
    ("GET", "/api/v1/me/tokens"): Recipe(api_token=True),
    ("POST", "/api/v1/me/tokens"): Recipe(
        body=lambda _world: {"name": "nightly", "scopes": ["sessions:read"], "expires_in_days": 30},
        wrong={
            "name": (*NOT_TEXT, "", "x" * 101, "\n"),
            "scopes": ("sessions:read", None, {}, [], [7], ["sessions"], ["sessions:read"] * 6),
            "expires_in_days": ("7", None, [], 0, -1, 367, 1.5, 10**30),
        },
    ),
    ("DELETE", "/api/v1/me/tokens/{id}"): Recipe(
        body=lambda _world: {},
        api_token=True,
        path=lambda world: str(world.api_token),
        absent=lambda _world: Recipe(body=lambda _: {}, path=lambda _: str(ABSENT)),
    ),
    ("POST", "/api/v1/sessions"): Recipe(
        scope="sessions:write",
        body=lambda _world: {"tier": "public"},
        wrong={"tier": (7, None, "secret", [], {}), "pack_id": (7, True, "x", [], {})},
        absent=lambda _world: Recipe(body=lambda _: {"pack_id": str(ABSENT)}),
    ),
    ("GET", "/api/v1/sessions"): Recipe(
        scope="sessions:read", session=True, bad_filters=("status=nope", "status=running,nope")
    ),
    ("GET", "/api/v1/sessions/current"): Recipe(scope="sessions:read", session=True),
    ("GET", "/api/v1/sessions/{id}"): _of_session(scope="sessions:read"),
    ("POST", "/api/v1/sessions/{id}/stop"): _of_session(scope="sessions:write", body=lambda _world: {}),
    ("GET", "/api/v1/admin/users"): Recipe(
        bad_filters=("email=" + "x" * 255, "is_admin=maybe", "is_disabled=7", "is_disabled=true&is_disabled=true")
    ),
    ("PATCH", "/api/v1/admin/users/{id}"): Recipe(
        body=lambda _world: {"max_concurrent_sessions": 2},
        wrong={
            "is_admin": ("yes", "true", 1, None, [], {}),
            "is_disabled": ("no", "false", 0, None, [], {}),
            "max_concurrent_sessions": ("7", None, [], {}, True, -1, 1001, 1.5, 10**30),
        },
        path=lambda world: str(world.owner.user_id),
        absent=lambda _world: Recipe(body=lambda _: {"is_admin": False}, path=lambda _: str(ABSENT)),
    ),
    ("GET", "/api/v1/admin/sessions"): Recipe(session=True, bad_filters=("status=nope", "user_id=x", "user_id=")),
    ("POST", "/api/v1/admin/sessions/{id}/stop"): _of_session(body=lambda _world: {}),
}
