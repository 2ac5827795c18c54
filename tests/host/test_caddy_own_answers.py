"""What Caddy answers itself, and what it adds to the answers of others, keeps browsers strict."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.caddy_site import (
    CaddySite,
    Message,
    ScriptedServer,
    Wire,
    admit,
    answer,
    caddy_environment,
    caddy_network,
    container,
)

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.caddy_fixtures"]

STRICT = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HSTS = "max-age=31536000; includeSubDomains"


def assert_strict(got: Message) -> None:
    assert {name: got.value(name) for name in STRICT} == STRICT
    features = got.value("Permissions-Policy") or ""
    assert all(f"{name}=()" in features for name in ("camera", "microphone", "geolocation", "payment"))


def unknown(site: CaddySite) -> Message:
    """The answer to a name that is not ours at all."""
    wire = site.connect(site.platform)
    wire.send(b"GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
    head = wire.head()
    assert head is not None
    return head


def break_off(_request: Message, wire: Wire) -> None:
    wire.close()


def test_every_answer_of_caddys_own_is_strict(site: CaddySite) -> None:
    sibling = ("Origin", f"https://s-aaaaaaaa.medforge.localhost:{site.port}")
    told = [
        (403, site.get("/api/v1/auth/session-proxy")),
        (403, site.get("/", sibling)),
        (403, site.get("/", ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Dest", "iframe"))),
        (403, site.get("/", ("Origin", "https://evil.test"), method="POST", body=b"x")),
        (403, site.get("/", ("Origin", "https://evil.test"), ("Upgrade", "websocket"), ("Connection", "Upgrade"))),
        (404, site.get("/", host=f"other.medforge.localhost:{site.port}")),
        (404, unknown(site)),
    ]
    site.facade.script = answer(200)
    told.append((502, site.get("/")))
    site.facade.script = break_off
    told += [(502, site.get("/")), (502, site.get("/api/v1/me", host=site.platform))]

    for status, got in told:
        assert got.status == status
        assert_strict(got)
        assert got.value("Content-Type") in ("text/plain; charset=utf-8", "application/problem+json")


def test_a_sessions_own_headers_are_its_own(site: CaddySite) -> None:
    """What a tenant's page may load and who may frame it is for the tenant to say."""
    mine = ("Content-Security-Policy", "default-src *"), ("Referrer-Policy", "unsafe-url"), ("Cache-Control", "public")
    site.session.script = answer(200, *mine)

    got = site.get()

    assert [(name, got.value(name)) for name, _ in mine] == list(mine)
    assert got.value("Cross-Origin-Opener-Policy") is None


def test_a_trial_asks_no_browser_to_insist_on_https(site: CaddySite) -> None:
    """Its certificate makes browsers warn, and they would let nobody past the warning; nor may a session ask for it."""
    site.session.script = answer(200, ("Strict-Transport-Security", "max-age=9"))

    for got in (site.get(), site.get(host=site.platform), site.get("/api/v1/auth/session-proxy")):
        assert got.values("Strict-Transport-Security") == []


@pytest.fixture
def domain() -> Iterator[CaddySite]:
    """A Caddy for a domain of its own, with a facade and without sessions."""
    directory = Path(tempfile.mkdtemp(prefix="mfcd-"))
    directory.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        network, address = stack.enter_context(caddy_network())
        environment = {**caddy_environment(network, address, directory), "MEDFORGE_DOMAIN": "example.test"}
        facade = ScriptedServer(directory / "facade" / "facade.sock")
        facade.start()
        stack.callback(facade.stop)
        stack.callback(container, "down", environment)
        made = container("up", environment)
        assert made.returncode == 0, made.stderr
        authority = directory / "state" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        made_site = CaddySite(int(environment["MEDFORGE_HTTPS_PORT"]), environment, authority, facade, facade, ())
        yield made_site
        while made_site.opened:
            made_site.opened.pop().close()


def test_every_host_of_a_domain_insists_on_https(domain: CaddySite) -> None:
    session = "s-abcdefgh.medforge.example.test"
    domain.facade.script = answer(200, ("Strict-Transport-Security", "max-age=0"))
    told = [
        (200, domain.get("/", host="medforge.example.test")),
        (200, domain.get("/", host="api.medforge.example.test")),
        (403, domain.get("/api/v1/auth/session-proxy", host=session)),
        (404, domain.get("/", host="other.medforge.example.test")),
        (502, domain.get("/", host=session)),
    ]
    domain.facade.script = answer(401)
    told.append((401, domain.get("/", host=session)))
    domain.facade.script = break_off
    told += [(502, domain.get("/", host=session)), (502, domain.get("/", host="medforge.example.test"))]
    domain.facade.script = admit
    told.append((502, domain.get("/", host=session)))

    for status, got in told:
        assert (got.status, got.values("Strict-Transport-Security")) == (status, [HSTS])
