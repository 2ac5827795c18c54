"""The OpenAPI document is valid, and says of every route what the table says."""

from __future__ import annotations

import copy
from typing import Any, cast

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from facade.middleware.access import Who
from facade.openapi.document import document
from facade.routing import Route
from tests.fakes.handlers import named_routes

pytestmark = pytest.mark.unit

Json = dict[str, Any]


@pytest.fixture(scope="module")
def routes() -> tuple[Route, ...]:
    return named_routes()


@pytest.fixture
def made(routes: tuple[Route, ...]) -> Json:
    return cast("Json", msgspec.json.decode(msgspec.json.encode(document(routes, version="1.2.3"))))


def faults(made: Json) -> list[str]:
    return [error.message for error in OpenAPIV31SpecValidator(made).iter_errors()]


def operations(made: Json) -> dict[tuple[str, str], Json]:
    return {
        (verb.upper(), path): operation
        for path, item in made["paths"].items()
        for verb, operation in item.items()
        if verb != "parameters"
    }


def test_it_is_openapi_3_1(made: Json) -> None:
    assert made["openapi"] == "3.1.0"
    assert faults(made) == []


@pytest.mark.parametrize("fault", ["version", "title", "parameter"])
def test_a_fault_is_found(made: Json, fault: str) -> None:
    broken = copy.deepcopy(made)
    if fault == "version":
        broken["openapi"] = 3
    elif fault == "title":
        del broken["info"]["title"]
    else:
        broken["paths"]["/api/v1/me"]["get"]["parameters"] = [{"name": "x", "in": "nowhere"}]
    assert faults(broken)


def test_every_reference_leads_somewhere(made: Json) -> None:
    def look(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target: Any = made
                for part in str(node["$ref"]).removeprefix("#/").split("/"):
                    target = target[part]
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    look(made)


def test_it_has_every_route_and_no_other(made: Json, routes: tuple[Route, ...]) -> None:
    assert list(operations(made)) == [(route.verb, route.path) for route in routes]


def test_it_tells_who_may_call(made: Json, routes: tuple[Route, ...]) -> None:
    told = operations(made)
    for route in routes:
        security = told[route.verb, route.path]["security"]
        if route.who is Who.ANYONE:
            assert security == []
        elif route.scope is None:
            assert security == [{"cookie": []}]
        else:
            assert security == [{"cookie": []}, {"bearer": [route.scope.value]}]


def test_names_of_operations_are_unique_and_lasting(made: Json) -> None:
    names = [operation["operationId"] for operation in operations(made).values()]
    assert len(set(names)) == len(names)
    assert {"post_auth_signup", "get_sessions_id", "post_sessions_id_stop", "get_openapi_json"} <= set(names)


def test_every_problem_is_the_common_document(made: Json) -> None:
    for where, operation in operations(made).items():
        for status, response in operation["responses"].items():
            problem = response.get("content", {}).get("application/problem+json")
            if problem is None:
                assert int(status) < 400 or where[1] == "/healthz"
                continue
            assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDocument"}
            for example in problem["examples"].values():
                assert example["value"]["status"] == int(status)
                assert example["value"]["detail"] in response["description"].split(" · ")
                jsonschema.validate(example["value"], made["components"]["schemas"]["ProblemDocument"] | made)


@pytest.mark.parametrize(
    ("where", "status", "headers"),
    [
        (("POST", "/api/v1/auth/login"), "200", {"X-Request-ID", "Set-Cookie"}),
        (("POST", "/api/v1/auth/login"), "401", {"X-Request-ID", "WWW-Authenticate"}),
        (("POST", "/api/v1/auth/login"), "415", {"X-Request-ID", "Accept", "Accept-Encoding"}),
        (("POST", "/api/v1/auth/login"), "503", {"X-Request-ID", "Retry-After"}),
        (("GET", "/api/v1/auth/session-proxy"), "200", {"X-Request-ID", "X-Upstream"}),
        (("GET", "/api/v1/auth/session-proxy"), "302", {"X-Request-ID", "Location"}),
    ],
)
def test_headers(made: Json, where: tuple[str, str], status: str, headers: set[str]) -> None:
    assert set(operations(made)[where]["responses"][status]["headers"]) == headers


def test_queries_and_bodies_come_from_the_types(made: Json) -> None:
    listing = operations(made)["GET", "/api/v1/sessions"]["parameters"]
    assert [(parameter["name"], parameter["in"], parameter["required"]) for parameter in listing] == [
        ("limit", "query", False),
        ("cursor", "query", False),
        ("status", "query", False),
    ]
    assert listing[0]["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    told = operations(made)
    assert told["POST", "/api/v1/auth/login"]["requestBody"]["required"] is True
    assert told["POST", "/api/v1/sessions"]["requestBody"]["required"] is False
    assert made["components"]["schemas"]["Credentials"]["additionalProperties"] is False


def test_the_envelope_is_told(made: Json) -> None:
    content = operations(made)["GET", "/api/v1/me"]["responses"]["200"]["content"]["application/json"]
    assert content["schema"]["required"] == ["data", "meta"]
    assert set(made["components"]["schemas"]["Meta"]["required"]) == {
        "request_id",
        "api_version",
        "timestamp",
        "limit",
        "next_cursor",
        "has_more",
    }
