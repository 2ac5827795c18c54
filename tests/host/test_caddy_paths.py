"""The facade's question is not for users: its path is refused on session hosts in every spelling, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.host.caddy_site import CaddySite

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.caddy_fixtures"]

SPELLINGS = [
    "/api/v1/auth/session-proxy",
    "/api/v1/auth/session-proxy/",
    "/api/v1/auth/session-proxy?x=y",
    "/api/v1/auth/session-proxy/more",
    "/api/v1/auth/session-proxy%00",
    "/api/v1/auth/session-proxy%0a",
    "/api/v1/auth/session-proxy.",
    "/api/v1/auth/session-proxy;x=y",
    "/api/v1/auth/session-proxy%20",
    "/api/v2/auth/session-proxy",
    "/api/v10/auth/session-proxy",
    "/api/auth/session-proxy",
    "/api/v2/external/auth/session-proxy",
    "/API/V1/AUTH/SESSION-PROXY",
    "/Api/v1/auTH/session-Proxy",
    "//api/v1/auth/session-proxy",
    "///api//v1///auth//session-proxy",
    "/./api/v1/./auth/session-proxy",
    "/x/../api/v1/auth/session-proxy",
    "/api/v1/auth/x/../session-proxy",
    "/x/%2e%2e/api/v1/auth/session-proxy",
    "/x/%2E./api/v1/auth/session-proxy",
    "/../../api/v1/auth/session-proxy",
    "/api%2Fv1%2fauth%2Fsession-proxy",
    "/%2fapi/v1/auth/session-proxy",
    "/%61pi/v1/auth/session-proxy",
    "/api/v1/auth/%73ession-proxy",
    "/api/v1/auth/%53ession-proxy",
    "/api/v1/auth/session%2dproxy",
    "/api/v1/auth/session%2Dproxy",
    "/api/%76%31/auth/session-proxy",
    "/api/v1/auth/%2573ession-proxy",
    "/api/v1/auth/%252573ession%25252Dprox%2579",
    "/%2561%2570%2569/v1/%2561uth/session-proxy",
    "/api%252Fv1%252Fauth%252Fsession-proxy",
    "/api\\v1\\auth\\session-proxy",
    "/\\api/v1/auth/session-proxy",
    "/api%5cv1%5cauth%5Csession-proxy",
    "/api/v1\\..\\v1/auth/session-proxy",
    "/api;a=b/v1;c/auth;d=e/session-proxy;f",
    "/;/api/v1/auth/session-proxy",
    "/api/v1/auth/;/session-proxy",
    "/api/v1/auth/.;/session-proxy",
    "/api/v1%0a/auth/session-proxy",
    "http://HOST/api/v1/auth/session-proxy",
    "https://HOST//api/v1/auth/%73ession-proxy",
]


@pytest.mark.parametrize("target", SPELLINGS)
def test_every_spelling_is_refused_by_caddy_itself(site: CaddySite, target: str) -> None:
    got = site.get(target.replace("HOST", site.host), ("Cookie", "medforge_session=token"))

    assert (got.status, got.body) == (403, b"Forbidden")
    assert site.facade.seen == []
    assert site.session.seen == []


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_it_is_refused_for_every_method(site: CaddySite, method: str) -> None:
    assert site.get("/api/v1/auth/session-proxy", method=method).status == 403
    assert site.facade.seen == []


@pytest.mark.parametrize("label", ["s-aaaaaaaa", "other"])
def test_it_is_refused_on_every_wildcard_host(site: CaddySite, label: str) -> None:
    got = site.get("/api/v1/auth/session-proxy", host=f"{label}.medforge.localhost:{site.port}")

    assert (got.status, got.body) == (403, b"Forbidden")


@pytest.mark.parametrize("target", ["/api/v1/auth/session-proxy", "/api/v1/auth/%2573ession-proxy"])
def test_it_is_refused_over_http2(site: CaddySite, target: str) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is needed"
    where = site.host.partition(":")[0]
    done = subprocess.run(
        [
            *(curl, "--silent", "--http2", "--path-as-is", "--cacert", str(site.authority)),
            *("--resolve", f"{where}:{site.port}:127.0.0.1", "--write-out", " %{http_version} %{http_code}"),
            f"https://{site.host}{target}",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout == "Forbidden 2 403"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?path=/api/v1/auth/session-proxy",
        "/api/v1/auth/session",
        "/api/v1/sessions",
        "/session-proxy",
        "/auth/api/session_proxy",
        "/a%2Fb%5C%20%41/%E2%82%AC",
        "/a%25b/%2541",
        "//double//slash",
        "/dots/../and/./dots",
        "/semi;colon=1/q?a;b=c&d=%20+",
        "/a~!$&'()*+,=:@",
        "/?",
        "/%7Bhttp.request.uuid%7D/?x={http.request.uuid}",
    ],
)
def test_any_other_path_arrives_as_it_was_sent(site: CaddySite, target: str) -> None:
    assert site.get(target).status == 200

    [arrived] = site.session.seen
    assert arrived.target == target
