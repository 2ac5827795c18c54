"""The facade's settings: defaults, the names that documents use, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from facade.config import ALIASES, PREFIX, Settings, load_settings, simulated, tcp_address
from medforged.configuration import ConfigurationError

pytestmark = pytest.mark.unit


def test_defaults() -> None:
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.auth.cookie_secure
    assert settings.auth.idle_ttl_seconds == 7 * 24 * 3600
    assert settings.auth.max_ttl_seconds == 30 * 24 * 3600
    assert settings.daemon.socket == "/run/medforge/medforged.sock"


def test_documented_names() -> None:
    environ = {"COOKIE_SECURE": "false", "AUTH_IDLE_TTL_SECONDS": "60", "AUTH_MAX_TTL_SECONDS": "120"}
    auth = load_settings(None, environ).auth
    assert (auth.cookie_secure, auth.idle_ttl_seconds, auth.max_ttl_seconds) == (False, 60, 120)
    assert set(environ) == set(ALIASES)


def test_file_and_environment(tmp_path: Path) -> None:
    path = tmp_path / "facade.toml"
    path.write_text('[site]\ndomain = "example.test"\nhttps_port = 8443\n')
    settings = load_settings(path, {f"{PREFIX}SITE__HTTPS_PORT": "9443"})
    assert (settings.site.domain, settings.site.https_port) == ("example.test", 9443)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[site]\ndomian = 'x'\n", "facade.toml:2: unknown key site.domian"),
        ("[site]\ndomain = 'EXAMPLE.test'\n", "facade.toml:2"),
        ("[site]\ndomain = 'example.test.'\n", "facade.toml:2"),
        ("[site]\ndomain = ''\n", "facade.toml:2"),
        ("[site]\ndomain = 'bücher.test'\n", "facade.toml:2"),
        ("[site]\nhttps_port = 0\n", "facade.toml:2"),
        ("[site]\ndevelopment_origins = ['http://localhost:5173/']\n", "is not an origin"),
        ("[site]\ndevelopment_origins = ['null']\n", "is not an origin"),
        ("[site]\ndevelopment_origins = ['*']\n", "is not an origin"),
        ("[listen]\ntcp = '8080'\n", "write host:port"),
        ("[listen]\ntcp = '127.0.0.1:x'\n", "write host:port"),
        ("[listen]\ntcp = '127.0.0.1:99999'\n", "write host:port"),
        ("[listen]\nsocket_mode = '0999'\n", "facade.toml:2"),
        ("[auth]\nidle_ttl_seconds = 0\n", "facade.toml:2"),
        ("[auth]\nidle_ttl_seconds = 10\nmax_ttl_seconds = 5\n", "lower it"),
        ("[database]\nurl = 'postgresql://x/y'\n", "facade.toml:2"),
    ],
)
def test_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "facade.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {})
    assert told in str(caught.value)


def test_unknown_variable_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="MEDFORGE_FACADE_SITE__DOMIAN"):
        load_settings(None, {"MEDFORGE_FACADE_SITE__DOMIAN": "x"})


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("localhost:0", ("localhost", 0))],
)
def test_tcp_address(text: str, address: tuple[str, int]) -> None:
    assert tcp_address(text) == address


def test_the_simulated_profile_needs_no_proxy_and_no_root(tmp_path: Path) -> None:
    settings = simulated(Settings(), tmp_path)
    assert settings.listen.tcp == "127.0.0.1:8080"
    assert not settings.auth.cookie_secure
    assert settings.process.allow_privileged
    assert "http://medforge.localhost:8080" in settings.site.development_origins
    assert settings.daemon.socket == str(tmp_path / "medforged.sock")
    assert str(tmp_path) in settings.database.url
