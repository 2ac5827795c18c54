"""Owns installing what this host lacks: distribution packages and the virtual environment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from common import ROOT, Failure, run, say, succeeds

APT_LOG = Path("/var/log/medforge-packages.log")


def install(wanted: dict[str, bool]) -> None:
    """Install the packages whose value is False: what they bring was not found on this host."""
    missing = sorted(name for name, present in wanted.items() if not present)
    if not missing:
        return
    if os.geteuid() != 0:
        raise Failure(f"packages are missing; ask root to run: apt-get install {' '.join(missing)}", 77)
    if shutil.which("apt-get") is None:
        raise Failure(f"this host has no apt-get; install these by hand: {', '.join(missing)}")
    say(f"installing {', '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    # Another installation may hold dpkg's lock for a while, as on a host that has just booted.
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    run(["apt-get", *wait, "update", "-qq"], log=APT_LOG, env=env)
    run(["apt-get", *wait, "install", "-y", "-qq", "--no-install-recommends", *missing], log=APT_LOG, env=env)


def available(package: str) -> bool:
    """Whether the distribution offers a package (its lists are fetched if there are none yet)."""
    if not any(Path("/var/lib/apt/lists").glob("*Packages*")):
        run(["apt-get", "update", "-qq"], log=APT_LOG)
    policy = run(["apt-cache", "policy", package], check=False)
    return "Candidate:" in policy and "Candidate: (none)" not in policy


def python_packages() -> dict[str, bool]:
    """What the virtual environment needs: venv itself, and a compiler for python-iptables."""
    headers = bool(list(Path("/usr/include").glob("python3*/Python.h")))
    return {
        "python3-venv": succeeds(["/usr/bin/python3", "-c", "import ensurepip, venv"]),
        "python3-dev": headers,
        "gcc": shutil.which("gcc") is not None,
        "libc6-dev": Path("/usr/include/stdio.h").exists(),
    }


def virtualenv(*, extras: str = "") -> Path:
    """The checkout's virtual environment with MedForge in it, made or renewed when its inputs have changed.

    Renewed in place where that is possible: what runs from it goes on meanwhile, until it is restarted.
    """
    home = ROOT / ".venv"
    constraints = ROOT / "deploy" / "constraints.txt"
    # libzfs_core belongs to the distribution's Python; everything else comes from the environment itself.
    native_zfs = succeeds(["/usr/bin/python3", "-I", "-c", "import libzfs_core"])
    base = _digest(f"{native_zfs} {os.path.realpath('/usr/bin/python3')} {ROOT}".encode())
    inputs = _digest((ROOT / "pyproject.toml").read_bytes(), constraints.read_bytes())
    marker = home / ".medforge"

    def present() -> tuple[str, str, set[str]]:
        """Base, inputs and extras of what is there."""
        found = marker.read_text().split() if marker.exists() else []
        return (found[0], found[1], set(found[2:])) if len(found) > 1 else ("", "", set())

    def serves() -> bool:
        """An environment with more serves whoever needs less."""
        return present()[:2] == (base, inputs) and (not extras or extras in present()[2])

    if serves():
        return home
    if not os.access(ROOT, os.W_OK):
        raise Failure(
            f"{ROOT} belongs to somebody else and has no finished virtual environment; use a clone of your own", 77
        )
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if serves():
            return home
        had_base, _, had_extras = present()
        wanted = sorted({*had_extras, extras} - {""})
        say(f"making the virtual environment {home}{' with ' + ', '.join(wanted) if wanted else ''}")
        install(python_packages())
        if had_base != base:
            shutil.rmtree(home, ignore_errors=True)
            site = ["--system-site-packages"] if native_zfs else []
            run(["/usr/bin/python3", "-m", "venv", *site, home])
        marker.write_text(" ".join([base, "unfinished", *wanted]))
        log = home / "install.log"
        target = f"{ROOT}[{','.join(wanted)}]" if wanted else str(ROOT)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "wheel", "setuptools"], log=log)
        run([*pip, "--constraint", constraints, "--editable", target], log=log)
        marker.write_text(" ".join([base, inputs, *wanted]))
    return home


def _digest(*parts: bytes) -> str:
    key = hashlib.sha256()
    for part in parts:
        key.update(part)
    return key.hexdigest()
