"""Owns the problems that a route's columns entail: what its guard, its path, its body and HTTP itself can come to."""

from __future__ import annotations

from facade.auth.bearer import insufficient_scope, invalid_token
from facade.middleware.access import Who
from facade.problems import (
    Problem,
    admins_only,
    database_unavailable,
    malformed,
    not_found,
    not_signed_in,
    origin_refused,
    too_large,
    too_slow,
    unexpected,
    validation,
)
from facade.routing import Route
from facade.schemas.bodies import compressed, invalid_json, not_json
from facade.schemas.paging import Paging, invalid_cursor, invalid_limit
from facade.schemas.paths import invalid_id

__all__ = ["problems"]


def problems(route: Route) -> tuple[Problem, ...]:
    """Every problem that the route can answer, its own first."""
    found = [*route.problems]
    if route.changes:
        found.append(origin_refused())
    if route.who in (Who.SIGNED_IN, Who.ADMIN):
        found += [not_signed_in(), invalid_token(), insufficient_scope(route.scope)]
    if route.who is Who.ADMIN:
        found.append(admins_only())
    if "{id}" in route.path:
        found.append(invalid_id())
    if route.query is not None:
        found.append(validation((["query", "limits"], "Unknown parameter.", "extra_forbidden")))
        if issubclass(route.query, Paging):
            found += [invalid_limit(), invalid_cursor()]
    if route.body is not None:
        field = validation((["body", "colour"], "Unknown field.", "extra_forbidden"))
        found += [too_large(), too_slow(), not_json(), compressed(), invalid_json(), field]
    if route.who is not Who.CADDY:
        found.append(not_found())  # under the host name of a session there is no API
    if route.who is not Who.ANYONE or route.body is not None:
        found.append(database_unavailable())
    # Any request can be no HTTP, or expect what we do not do; and any handler can have a defect.
    expectation = Problem(417, "This expectation cannot be met.")
    return (*found, malformed(), expectation, unexpected())
