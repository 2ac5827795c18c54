"""The first settings: valid for daemon and facade, coherent with Caddy's, and never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from facade.config import load_settings as facade_settings
from medforged.config import load_settings as daemon_settings
from tests.integration.deploy.program import ROOT, inside

pytestmark = pytest.mark.integration


def ensure(folder: Path, **wishes: object) -> tuple[int, str]:
    """Validate and write; the exit code and what was said."""
    done = inside(
        "import places, settings, common; from pathlib import Path\n"
        f"places.SETTINGS = Path({str(folder)!r})\n"
        f"wishes = settings.Wishes(**{wishes!r})\n"
        "try:\n"
        f"    settings.validate(wishes); settings.ensure(Path({str(ROOT)!r}), wishes)\n"
        "except common.Failure as error:\n"
        "    common.fail(error)\n"
    )
    return done.returncode, done.stderr


def test_what_is_written_can_be_used_and_agrees(tmp_path: Path) -> None:
    assert ensure(tmp_path, domain="lab.example.org", pool="fast")[0] == 0
    facade = facade_settings(tmp_path / "facade.toml", {})
    daemon = daemon_settings(tmp_path / "medforged.toml", {})
    assert (facade.site.domain, facade.site.https_port) == ("lab.example.org", 443)
    assert daemon.workspaces.pool == "fast"
    caddy = (tmp_path / "caddy.env").read_text()
    assert "MEDFORGE_DOMAIN=lab.example.org\nMEDFORGE_HTTPS_PORT=443\n" in caddy


def test_a_trial_has_another_port(tmp_path: Path) -> None:
    ensure(tmp_path)
    assert facade_settings(tmp_path / "facade.toml", {}).site.https_port == 8443


def test_what_an_operator_has_written_is_not_touched(tmp_path: Path) -> None:
    mine = '[site]\ndomain = "mine.example.org"\n'
    (tmp_path / "facade.toml").write_text(mine)
    assert ensure(tmp_path, domain="mine.example.org")[0] == 0
    assert (tmp_path / "facade.toml").read_text() == mine
    assert (tmp_path / "medforged.toml").exists()


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"domain": "Upper.example.org"}, "in lower case"),
        ({"domain": "a..b"}, "in lower case"),
        ({"domain": "$(reboot)"}, "in lower case"),
        ({"pool": "-o"}, "name of a ZFS pool"),
        ({"pool": "a b"}, "name of a ZFS pool"),
        ({"https_port": 65536}, "from 1 to 65535"),
        ({"domain": "other.example.org"}, "says mine.example.org; change it there"),
    ],
)
def test_bad_input_changes_nothing(tmp_path: Path, wishes: dict[str, object], told: str) -> None:
    (tmp_path / "facade.toml").write_text('[site]\ndomain = "mine.example.org"\n')
    code, said = ensure(tmp_path, **wishes)
    assert code == 78
    assert told in said
    assert [path.name for path in tmp_path.iterdir()] == ["facade.toml"]


def test_settings_that_are_no_toml_are_told(tmp_path: Path) -> None:
    (tmp_path / "facade.toml").write_text("[site\n")
    code, said = ensure(tmp_path, domain="example.org")
    assert (code, "correct it first" in said) == (78, True)
