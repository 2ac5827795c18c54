"""Owns the Debian package: the source tree, all wheels, and the scripts that make a release of them."""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import string
import sys
import tempfile
import time
from pathlib import Path

import packages
import places
import releases
from common import ROOT, Failure, fail, run, say

_DEBIAN = ROOT / "deploy" / "debian"
_MAINTAINER = "MedForge <maintainers@medforge.dev>"
_SCRIPTS = ("postinst", "prerm", "postrm")


def main() -> None:
    parser = argparse.ArgumentParser(prog="deploy/package", description="Build the Debian package.")
    parser.add_argument("--wheels", type=Path, help="folder with all Python packages: nothing is fetched")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the package goes (dist)")
    options = parser.parse_args()
    os.umask(0o022)
    try:
        print(_build(options.output.absolute(), options.wheels and options.wheels.absolute()))
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _build(output: Path, wheels: Path | None) -> Path:
    version = releases.version_of(ROOT)
    architecture = run(["dpkg", "--print-architecture"]).strip()
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"medforge_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory(prefix="medforge-package-") as scratch:
        tree = Path(scratch) / "tree"
        share = tree / "usr" / "share"
        say("gathering the source tree")
        source = share / "medforge" / "source"
        source.mkdir(parents=True)
        releases.copy_source(ROOT, source)
        if wheels is None:
            _fetch_wheels(share / "medforge" / "wheels")
        else:
            shutil.copytree(wheels, share / "medforge" / "wheels")
        _documents(share / "doc" / "medforge", version)
        _commands(tree / "usr" / "bin")
        _control(tree, version, architecture)
        _normalise(tree)
        say("packing")
        part = target.with_suffix(".part")
        # Wheels are compressed already; xz would take a minute to save nothing.
        run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, part])
        part.replace(target)
    return target


def _fetch_wheels(target: Path) -> None:
    """Every package that a release needs, what builds it included, for this distribution's Python."""
    say("fetching and building the wheels")
    packages.install(packages.python_packages())
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="medforge-wheels-") as scratch:
        log = Path(scratch) / "log"
        run(["/usr/bin/python3", "-m", "venv", scratch], log=log)
        pip = [Path(scratch) / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
        common = ["--constraint", ROOT / "deploy" / "constraints.txt", "--wheel-dir", target]
        run([*pip, *common, "hatchling", "wheel", "setuptools", f"{ROOT}[mariadb]"], log=log)
        for own in target.glob("medforge-*.whl"):
            own.unlink()


def _documents(target: Path, version: str) -> None:
    shutil.copytree(ROOT / "docs", target)
    for name in ("README.md", "ARCHITECTURE.md"):
        shutil.copyfile(ROOT / name, target / name)
    shutil.copyfile(_DEBIAN / "copyright", target / "copyright")
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(_source_time()))
    entry = f"medforge ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {_MAINTAINER}  {date}\n"
    with gzip.GzipFile(target / "changelog.gz", "wb", mtime=0) as file:
        file.write(entry.encode())
    shutil.copyfile(ROOT / "CHANGELOG.md", target / "CHANGELOG.md")


def _commands(target: Path) -> None:
    target.mkdir(parents=True)
    for name in places.COMMAND_NAMES:
        (target / name).symlink_to(os.path.relpath(places.CURRENT / "bin" / name, places.COMMANDS))


def _control(tree: Path, version: str, architecture: str) -> None:
    control = tree / "DEBIAN"
    control.mkdir()
    found = run(["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]).split()
    major, minor = (int(part) for part in found)
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    values = {
        "version": version,
        "architecture": architecture,
        "kilobytes": str(size),
        "python": f"{major}.{minor}",
        "python_next": f"{major}.{minor + 1}",
    }
    (control / "control").write_text(string.Template((_DEBIAN / "control").read_text()).substitute(values))
    for name in _SCRIPTS:
        shutil.copyfile(_DEBIAN / name, control / name)
    sums = [
        f"{run(['md5sum', path]).split()[0]}  {path.relative_to(tree)}\n"
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and control not in path.parents
    ]
    (control / "md5sums").write_text("".join(sums))


def _normalise(tree: Path) -> None:
    """Modes and times that do not depend on who builds: the same tree makes the same package."""
    moment = _source_time()
    for path in tree.rglob("*"):
        if path.is_symlink():
            continue
        runs = path.is_dir() or (path.parent.name == "DEBIAN" and path.name in _SCRIPTS) or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)
        os.utime(path, (moment, moment))


def _source_time() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isdigit() else int((ROOT / "pyproject.toml").stat().st_mtime)


if __name__ == "__main__":
    main()
