"""The route table holds what the contract says of who may do what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from facade.middleware.access import Who
from facade.routing import Route
from tests.fakes.handlers import named_routes

pytestmark = pytest.mark.unit


@pytest.fixture
def routes() -> dict[tuple[str, str], Route]:
    routes = named_routes()
    assert len({(route.verb, route.path) for route in routes}) == len(routes)
    return {(route.verb, route.path): route for route in routes}


def test_what_changes_state_is_guarded_and_only_that(routes: dict[tuple[str, str], Route]) -> None:
    for (verb, path), route in routes.items():
        assert route.changes == (verb != "GET"), path


def test_only_accounts_and_health_are_for_anyone(routes: dict[tuple[str, str], Route]) -> None:
    open_to_anyone = {path for (_, path), route in routes.items() if route.who is Who.ANYONE}
    accounts = {f"/api/v1/auth/{verb}" for verb in ("signup", "login", "logout")}
    assert open_to_anyone == {"/healthz", "/docs", "/api/v1/openapi.json", *accounts}
    assert [path for (_, path), route in routes.items() if route.who is Who.CADDY] == ["/api/v1/auth/session-proxy"]


def test_fixed_paths_come_before_the_ids_that_would_swallow_them(routes: dict[tuple[str, str], Route]) -> None:
    paths = [path for _, path in routes]
    assert paths.index("/api/v1/sessions/current") < paths.index("/api/v1/sessions/{id}")


def test_every_route_is_documented(routes: dict[tuple[str, str], Route]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "http-api.md").read_text()
    documented = set(re.findall(r"^### (GET|POST|PATCH|DELETE) (\S+)$", page, re.MULTILINE))
    assert documented == set(routes)
