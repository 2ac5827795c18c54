"""Owns the releases on this host: each is a folder of its own with its programs, units and pages, and one is current.

A release is never changed once it is complete, and what runs is never touched while another one is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import places
from common import Failure, run, say, succeeds

# What a release has of the source tree, beside the virtual environment that is made in it.
CONTENT = (
    "medforged", "facade", "cli", "web", "deploy", "systemd", "ops", "docs",
    "pyproject.toml", "LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md",
)  # fmt: skip
_PYTHON = "/usr/bin/python3"
_COMPLETE = ".complete"
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".venv", "*.egg-info")


@dataclass(frozen=True)
class Release:
    """One release, complete."""

    home: Path

    @property
    def name(self) -> str:
        """`<version>-<8 digits of what it was made from>`."""
        return self.home.name

    @property
    def version(self) -> str:
        return self.name.rsplit("-", 1)[0]

    def program(self, name: str) -> Path:
        return self.home / "bin" / name


def lock() -> int:
    """Keep other installations away for as long as this process lives. Raises Failure where one is at work."""
    places.LIBRARY.mkdir(parents=True, exist_ok=True)
    handle = os.open(places.LIBRARY / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Failure("another installation is at work on this host; wait until it has ended", 75) from error
    return handle


def make(source: Path, wheels: Path | None) -> Release:
    """The release of a source tree, made unless it is here. `wheels`: a folder to take all packages from."""
    # libzfs_core belongs to the distribution's Python, and nowhere else.
    native_zfs = succeeds([_PYTHON, "-I", "-c", "import libzfs_core"])
    release = Release(places.RELEASES / f"{version_of(source)}-{_digest(source, native_zfs)}")
    if (release.home / _COMPLETE).exists():
        return release
    say(f"making release {release.name}")
    shutil.rmtree(release.home, ignore_errors=True)
    release.home.mkdir(parents=True, mode=0o755)
    try:
        copy_source(source, release.home)
        _environment(release.home, wheels, native_zfs)
    except BaseException:  # whatever ends it, half a release is none
        shutil.rmtree(release.home, ignore_errors=True)
        raise
    (release.home / _COMPLETE).touch()
    os.sync()
    return release


def current() -> Release | None:
    """The release that serves, if there is one."""
    try:
        home = places.CURRENT.resolve(strict=True)
    except OSError:
        return None
    return Release(home) if (home / _COMPLETE).exists() else None


def put_in_place(release: Release) -> None:
    """Make it the one that serves from its next start on; at once or not at all."""
    link = places.LIBRARY / ".current.next"
    link.unlink(missing_ok=True)
    link.symlink_to(release.home.relative_to(places.LIBRARY))
    link.replace(places.CURRENT)


def forget_others(keep: set[Release]) -> None:
    """Remove what neither serves nor is to be gone back to."""
    for home in places.RELEASES.iterdir():
        if Release(home) not in keep:
            shutil.rmtree(home)


def version_of(source: Path) -> str:
    """The version that a source tree says it has. Raises Failure."""
    try:
        text = (source / "medforged" / "__init__.py").read_text()
    except OSError as error:
        raise Failure(f"{source} is no source tree of MedForge: {error.strerror}") from error
    found = re.search(r'^__version__ = "([0-9][0-9A-Za-z.+~]*)"$', text, re.MULTILINE)
    if found is None:
        raise Failure(f"{source}/medforged/__init__.py names no version")
    return found.group(1)


def copy_source(source: Path, home: Path) -> None:
    """Copy what a release has of a source tree. Raises Failure for an incomplete one."""
    for top in CONTENT:
        path = source / top
        if path.is_dir():
            shutil.copytree(path, home / top, ignore=_IGNORED)
        elif path.exists():
            shutil.copyfile(path, home / top)
        else:
            raise Failure(f"{path} is missing; take a complete source tree")
    # Whatever the modes of a checkout are: root writes, everybody reads.
    for path in home.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _digest(source: Path, native_zfs: bool) -> str:
    """Of everything a release is made from, so that the same again is nothing to do."""
    key = hashlib.sha256(f"{os.path.realpath(_PYTHON)} {native_zfs}\n".encode())
    for top in CONTENT:
        path = source / top
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts and not file.name.endswith(".pyc"):
                key.update(f"{file.relative_to(source)} {file.stat().st_mode & 0o111:o}\n".encode())
                key.update(hashlib.sha256(file.read_bytes()).digest())
    return key.hexdigest()[:8]


def _environment(home: Path, wheels: Path | None, native_zfs: bool) -> None:
    log = home / "install.log"
    site = ["--system-site-packages"] if native_zfs else []
    run([_PYTHON, "-m", "venv", *site, home], log=log)
    pip = [home / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    if wheels is not None:
        pip += ["--no-index", "--find-links", wheels]
    constraints = ["--constraint", home / "deploy" / "constraints.txt"]
    # pip writes its own caches; root's home is not the place for them.
    run([*pip, "--no-cache-dir", "--no-compile", *constraints, f"{home}[mariadb]"], log=log)
    # Nobody but root may write here, so what is not compiled now would be compiled at every start. On all cores.
    run([home / "bin" / "python", "-m", "compileall", "-q", "-j", "0", home / "lib"], log=log, check=False)
    # The source tree was needed to install from; programs find their packages in the environment.
    for package in ("medforged", "facade", "cli", "build"):
        shutil.rmtree(home / package, ignore_errors=True)
