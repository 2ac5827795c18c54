"""Every route, whoever asks and whatever is wrong with the request: each answer is the one that the table says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import pytest

import facade.bootstrap
import facade.routes
from facade.auth.principals import Scope
from facade.middleware.access import Who
from facade.routing import Route
from tests.fakes.handlers import named_routes
from tests.integration.facade.conformance.conftest import Stage, stage
from tests.integration.facade.conformance.expectations import CALLERS, TABLE, read
from tests.integration.facade.conformance.recipes import RECIPES
from tests.integration.facade.conformance.variants import good

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]

EXPECTED = read(TABLE.read_text(encoding="utf-8"))
ROUTES = {(route.verb, route.path): route for route in named_routes()}


async def test_every_route_has_its_expectations() -> None:
    assert set(EXPECTED) == set(ROUTES)
    assert set(RECIPES) == set(ROUTES)
    for where, route in ROUTES.items():
        fields = {field.encode_name for field in msgspec.structs.fields(route.body)} if route.body else set()
        assert set(RECIPES[where].wrong) == fields, where
        filters = {field.encode_name for field in msgspec.structs.fields(route.query)} if route.query else set()
        told = {text.partition("=")[0] for text in RECIPES[where].bad_filters}
        assert told == filters - {"limit", "cursor"}, where


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("where", EXPECTED, ids=" ".join)
async def test_row(shared: Stage, where: tuple[str, str], caller: str) -> None:
    # How a request is wrong in detail matters where it gets as far as the handler; elsewhere one of each is enough.
    every = caller == "user"
    assert await shared.faults(where, caller, EXPECTED[where], every=every) == []


@pytest.mark.parametrize("caller", ["anonymous", "user", "other", "token"])
@pytest.mark.parametrize("where", [where for where in EXPECTED if where[0] == "GET"], ids=" ".join)
async def test_head_is_get_without_a_body(shared: Stage, where: tuple[str, str], caller: str) -> None:
    world = await shared.world(caller, RECIPES[where])
    sent = good(*where, RECIPES[where], world)
    whole = await shared.ask(sent, world.caller)
    head = await shared.ask(replace(sent, verb="HEAD"), world.caller)
    assert (head.status, head.body) == (whole.status, b"")
    # An answer without a body need not say that it has none.
    changing = {"Date", "X-Request-ID", *([] if whole.body else ["Content-Length"])}
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in whole.headers.items() if name not in changing
    }


@pytest.mark.parametrize("where", EXPECTED, ids=" ".join)
async def test_options(shared: Stage, where: tuple[str, str]) -> None:
    world = await shared.world("anonymous", RECIPES[where])
    sent = replace(good(*where, RECIPES[where], world), verb="OPTIONS", headers=(), body=None)
    evil = sent.told(("Origin", "https://evil.example"), ("Access-Control-Request-Method", where[0]))
    for request in (sent, evil):
        answer = await shared.ask(request, world.caller)
        if where[1].endswith("/session-proxy"):
            assert answer.status == 404  # under a session's host name there is no API but this one question
        else:
            assert (answer.status, answer.body, answer.headers["Allow"]) == (204, b"", EXPECTED[where].allow)
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]


@dataclass(frozen=True)
class Sabotage:
    """A column of the route table gone wrong, and who of the callers then sees something else."""

    change: Callable[[Route], Route]
    seen_by: str


SABOTAGES = {
    "anyone may call": Sabotage(lambda route: replace(route, who=Who.ANYONE), "anonymous"),
    "an API token may call": Sabotage(lambda route: replace(route, scope=Scope.ACCOUNT_READ), "token"),
    "a token needs another scope": Sabotage(lambda route: replace(route, scope=Scope.ADMIN_READ), "token"),
    "no admin is needed": Sabotage(lambda route: replace(route, who=Who.SIGNED_IN), "user"),
    "other origins may change things": Sabotage(lambda route: replace(route, changes=False), "user"),
}


def sabotaged() -> list[tuple[str, tuple[str, str]]]:
    """Each sabotage with each route whose guard it takes away."""
    return [
        (name, where)
        for name, sabotage in SABOTAGES.items()
        for where, route in ROUTES.items()
        if sabotage.change(route) != route
        and not (name == "anyone may call" and route.who is Who.CADDY)  # the handler itself decides there
        and not (name.startswith("a") and "token" in name and route.who in (Who.ANYONE, Who.CADDY))
        and not (name == "an API token may call" and route.scope is not None)
        and not (name == "no admin is needed" and route.who is not Who.ADMIN)
    ]


@pytest.mark.parametrize(
    ("sabotage", "where"), sabotaged(), ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
async def test_a_guard_that_is_gone_is_noticed(
    sabotage: str,
    where: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, planted = facade.bootstrap.table, SABOTAGES[sabotage]

    def changed(handlers: facade.routes.Handlers) -> tuple[Route, ...]:
        found = table(handlers)
        return tuple(planted.change(route) if (route.verb, route.path) == where else route for route in found)

    monkeypatch.setattr(facade.bootstrap, "table", changed)
    async with stage(tmp_path_factory.mktemp("sabotaged")) as broken:
        assert await broken.faults(where, planted.seen_by, EXPECTED[where], every=False)
