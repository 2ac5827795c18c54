"""Which names are ours, to the letter, and where the login page may lead."""

from __future__ import annotations

import pytest

from facade.hosts import Hosts

pytestmark = pytest.mark.unit

HOSTS = Hosts("example.test", 443)


@pytest.mark.parametrize(
    "host",
    [
        "s-abcd2345.medforge.example.test",
        "s-abcd2345.medforge.example.test:443",
        "s-abcd2345.medforge.example.test:8443",
    ],
)
def test_session_host(host: str) -> None:
    assert HOSTS.session_slug(host) == "abcd2345"


@pytest.mark.parametrize("port", [443, 8443])
@pytest.mark.parametrize("told", ["", ":443", ":8443", ":1"])
def test_a_plain_slug_is_the_hosts(port: int, told: str) -> None:
    plain = Hosts("example.test", port).plain_slug(f"s-abcd2345.medforge.example.test{told}")
    assert plain == ("abcd2345" if told in ("", f":{port}") else None)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "s-",
        "medforge.example.test",
        "S-abcd2345.medforge.example.test",
        "s-abcd2345.medforge.example.test.",
        "s-abcd2345.medforge.example.test:443:443",
        "s-abcd23456.medforge.example.test",
        "s-abcd2345.medforge.example.testx",
        "s-abcd2345xmedforge.example.test",
    ],
)
def test_not_a_plain_host(host: str) -> None:
    assert HOSTS.plain_slug(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "medforge.example.test",
        "api.medforge.example.test",
        "abcd2345.medforge.example.test",
        "s-.medforge.example.test",
        "s-abcd234.medforge.example.test",
        "s-abcd23456.medforge.example.test",
        "s-abcd2310.medforge.example.test",
        "S-abcd2345.medforge.example.test",
        "s-ABCD2345.medforge.example.test",
        "s-abcd2345.medforge.example.test.",
        "s-abcd2345.medforge.example.test.evil.test",
        "s-abcd2345.medforge.example.testevil",
        "s-abcd2345.medforgeXexample.test",
        "evil.s-abcd2345.medforge.example.test",
        "s-abcd2345.evil.medforge.example.test",
        "s-abcd2345.medforge.example.test:",
        "s-abcd2345.medforge.example.test:x",
        "s-abcd2345.medforge.example.test:123456",
        "s-abcd2345.medforge.example.test:443\n",
        "s-abcd2345.medforge.example.test ",
        " s-abcd2345.medforge.example.test",
        "s-abcd2345.medforge.example.test, s-bbbbbbbb.medforge.example.test",
        "user@s-abcd2345.medforge.example.test",
        "s-abcd2345.medforge.example.test/",
        "s-abcd٢345.medforge.example.test",
        "s-abcd2345\x00.medforge.example.test",
    ],
)
def test_not_a_session_host(host: str) -> None:
    assert HOSTS.session_slug(host) is None


def test_site_host_is_case_insensitive_and_exact() -> None:
    assert HOSTS.is_site("MedForge.example.test:8443")
    for host in (
        "api.medforge.example.test",
        "medforge.example.test.",
        "xmedforge.example.test",
        "s-abcd2345.medforge.example.test",
    ):
        assert not HOSTS.is_site(host)


def test_origins_carry_a_port_that_is_not_the_default() -> None:
    assert HOSTS.origins == {"https://medforge.example.test", "https://api.medforge.example.test"}
    assert Hosts("localhost", 8443).origins == {
        "https://medforge.localhost:8443",
        "https://api.medforge.localhost:8443",
    }


def test_login_url_leads_back() -> None:
    assert Hosts("localhost", 8443).login_url("abcd2345", "/?folder=/workspace&x=1") == (
        "https://medforge.localhost:8443/login?next="
        "https%3A%2F%2Fs-abcd2345.medforge.localhost%3A8443%2F%3Ffolder%3D%2Fworkspace%26x%3D1"
    )


@pytest.mark.parametrize(
    "target",
    [
        "",
        "https://evil.test/",
        "evil",
        "@evil.test",
        ".evil.test/",
        "/a b",
        "/\r\nSet-Cookie: a=b",
        "/ü",
        "/" + "a" * 3000,
    ],
)
def test_a_strange_target_becomes_the_root(target: str) -> None:
    assert HOSTS.login_url("abcd2345", target).endswith("?next=https%3A%2F%2Fs-abcd2345.medforge.example.test%2F")


def test_a_target_with_two_slashes_stays_on_its_host() -> None:
    assert HOSTS.login_url("abcd2345", "//evil.test").endswith("s-abcd2345.medforge.example.test%2F%2Fevil.test")


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "/sessions?x=1",
        "https://medforge.example.test/",
        "https://medforge.example.test",
        "https://s-abcd2345.medforge.example.test/?folder=/workspace",
        "https://medforge.example.test:443/",
    ],
)
def test_may_follow(url: str) -> None:
    assert HOSTS.may_follow(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "/\tx",
        "https:evil.test",
        "https:///evil.test",
        "https://evil.test/",
        "https://medforge.example.test@evil.test/",
        "https://evil.test\\@medforge.example.test/",
        "https://medforge.example.test.evil.test/",
        "https://u:p@medforge.example.test/",
        "http://medforge.example.test/",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://[::1/",
        "https://api.medforge.example.test/",
        "https://medforge.example.test:8443/",
        "https://s-abcd2345.medforge.example.test:8443/",
        "https://s-abcd2345.medforge.example.test:/",
        "https://medforge.example.test /",
        "https://medforge.éxample.test/",
    ],
)
def test_may_not_follow(url: str) -> None:
    assert not HOSTS.may_follow(url)
