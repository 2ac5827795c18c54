"""Which client address reaches the facade: the one that Caddy saw, whatever the client says about itself."""

from __future__ import annotations

import ipaddress
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from facade.auth.addresses import Addresses
from tests.host.caddy_site import CaddySite, Message

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.caddy_fixtures"]

SPOOFED = "203.0.113.77"
CLAIMS: list[list[tuple[str, str]]] = [
    [("X-Forwarded-For", SPOOFED)],
    [("x-forwarded-for", SPOOFED)],
    [("X-Forwarded-For", SPOOFED), ("X-Forwarded-For", SPOOFED)],
    [("X-Forwarded-For", f"{SPOOFED}, {SPOOFED}")],
    [("X-Forwarded-For", f"{SPOOFED},")],
    [("X-Forwarded-For", "nonsense")],
    [("X-Forwarded-For", "")],
    [("X-Forwarded-For", "::ffff:203.0.113.77%x")],
    [("X_Forwarded_For", SPOOFED)],
    [("X-Forwarded_For", SPOOFED)],
    [("Forwarded", f"for={SPOOFED}")],
    [("X-Real-IP", SPOOFED)],
    [("Connection", "close, X-Forwarded-For"), ("X-Forwarded-For", SPOOFED)],
    [("X-Forwarded-For", SPOOFED + ", " + ", ".join(["10.0.0.1"] * 500))],
]


class Received:
    """A request as the facade gets it over its Unix socket."""

    remote = ""

    def __init__(self, message: Message) -> None:
        self.headers = CIMultiDict(message.headers)


def address(site: CaddySite, *headers: tuple[str, str]) -> str:
    site.facade.seen.clear()
    assert site.get("/api/v1/auth/login", *headers, host=site.platform, method="POST", body=b"{}").status == 200
    (seen,) = site.facade.seen
    assert len(seen.values("X-Forwarded-For")) == 1
    return str(Addresses().of(cast("Any", Received(seen))))


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda claims: "+".join(name for name, _ in claims))
def test_what_a_client_says_does_not_count(site: CaddySite, claims: list[tuple[str, str]]) -> None:
    own = address(site)
    assert ipaddress.ip_address(own)
    assert own != SPOOFED
    assert address(site, *claims) == own
