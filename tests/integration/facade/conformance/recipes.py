"""What a good request of each route is, and the values that its fields and filters must not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from medforged.contract.sessions import Session
from tests.integration.facade.conftest import PASSWORD, SITE, Person

__all__ = ["RECIPES", "Recipe", "World"]

ABSENT = UUID(int=0xABCD)


@dataclass(frozen=True)
class World:
    """Who there is in one request's world: the caller (None: nobody is signed in), and the owner of the session."""

    owner: Person
    caller: Person | None
    session: Session | None


@dataclass(frozen=True)
class Recipe:
    """`session`: the owner has a running one. `wrong`: by field, values of other types. `path` takes an id's place."""

    body: Callable[[World], dict[str, Any]] | None = None
    session: bool = False
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
_NEW = {"email": lambda: f"{uuid4().hex}@example.org"}


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
    ("GET", "/api/v1/me"): Recipe(),
    ("POST", "/api/v1/sessions"): Recipe(
        body=lambda _world: {"tier": "public"},
        wrong={"tier": (7, None, "secret", [], {}), "pack_id": (7, True, "x", [], {})},
        absent=lambda _world: Recipe(body=lambda _: {"pack_id": str(ABSENT)}),
    ),
    ("GET", "/api/v1/sessions"): Recipe(session=True, bad_filters=("status=nope", "status=running,nope")),
    ("GET", "/api/v1/sessions/current"): Recipe(session=True),
    ("GET", "/api/v1/sessions/{id}"): _of_session(),
    ("POST", "/api/v1/sessions/{id}/stop"): _of_session(body=lambda _world: {}),
}
