"""The document and its page, as they are served."""

from __future__ import annotations

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.integration.facade.conftest import SITE, Api

pytestmark = pytest.mark.integration
# Nothing here depends on what keeps the accounts.
DATABASES = ("sqlite",)

DATABASES = ("sqlite",)

DOCUMENT = "/api/v1/openapi.json"


async def test_the_document_is_served_and_valid(api: Api) -> None:
    answer = await api.get(DOCUMENT)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert list(OpenAPIV31SpecValidator(answer.json).iter_errors()) == []


async def test_the_page_is_served_strictly(api: Api) -> None:
    answer = await api.get("/docs")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"<script" not in answer.body


@pytest.mark.parametrize("path", [DOCUMENT, "/docs"])
async def test_what_has_not_changed_is_not_sent_again(api: Api, path: str) -> None:
    first = await api.get(path)
    assert first.headers["Cache-Control"] == "no-cache"
    for tags in (first.headers["ETag"], f"W/{first.headers['ETag']}", f'"other", {first.headers["ETag"]}'):
        again = await api.get(path, headers={"If-None-Match": tags})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert (await api.get(path, headers={"If-None-Match": '"other"'})).body == first.body


@pytest.mark.parametrize("path", [DOCUMENT, "/docs"])
async def test_it_is_for_anyone_but_not_under_a_sessions_host(api: Api, path: str) -> None:
    assert (await api.get(path, host=f"api.{SITE}")).status == 200
    assert (await api.get(path, host=f"s-abcd2345.{SITE}")).status == 404
