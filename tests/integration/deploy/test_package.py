"""The Debian package: everything is in it, nothing of a checkout's own, and lintian finds no error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from medforged import __version__
from tests.integration.deploy.program import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(part) for part in argv], text=True, capture_output=True, timeout=390, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("this distribution has no dpkg-deb")
    return Path(run(ROOT / "deploy" / "package", "--output", tmp_path_factory.mktemp("package")).strip())


def test_its_name_and_what_it_needs(package: Path) -> None:
    assert package.name.startswith(f"medforge_{__version__}_")
    fields = run("dpkg-deb", "--field", package)
    for needed in ("python3 (>= 3.", "docker.io", "zfsutils-linux", "python3-pyzfs", "iptables", "systemd"):
        assert needed in fields


def test_what_is_in_it(package: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--raw-extract", package, tmp_path / "tree")
    source = tmp_path / "tree/usr/share/medforge/source"
    wheels = [path.name for path in (tmp_path / "tree/usr/share/medforge/wheels").iterdir()]
    for name in ("aiohttp", "hatchling", "python_iptables", "uvloop", "asyncmy", "nvidia_ml_py"):
        assert any(wheel.startswith(f"{name}-") for wheel in wheels), name
    assert not any(wheel.startswith(("medforge-", "pytest-")) for wheel in wheels)
    for path in ("deploy/install", "systemd/medforged.service", "web/index.html", "medforged/daemon.py", "ops/images"):
        assert (source / path).exists(), path
    names = {path.name for path in source.rglob("*")}
    assert not {"tests", ".git", ".venv", "__pycache__"} & names
    assert (tmp_path / "tree/usr/bin/medforgectl").readlink() == Path("../lib/medforge/current/bin/medforgectl")
    assert (tmp_path / "tree/usr/share/doc/medforge/how-to/systemd.md").exists()


def test_nobody_but_root_can_write_what_it_brings(package: Path) -> None:
    for line in run("dpkg-deb", "--contents", package).splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root", line
        assert mode[0] == "l" or "w" not in mode[4:], line


def test_lintian_finds_no_error(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed; ops/test as root installs it")
    done = subprocess.run(
        ["lintian", "--allow-root", "--tag-display-limit", "0", package], text=True, capture_output=True, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("E:")]
    assert found == []
