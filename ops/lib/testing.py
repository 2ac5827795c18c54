"""Owns `ops/test`: what each lane needs, the static checks, and one pytest run over all lanes.

What it starts (dockerd, zfs-fuse) it stops again, by pid, whatever happens between.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostlab
import hostparts
import packages
from common import ROOT, Failure, fail, run, say, succeeds
from processes import Ledger

LANES = ("unit", "integration", "host", "browser", "gpu", "hostlab")
# How long all of it may take, in minutes; the lane `hostlab`, which comes last, is left out where too little is left,
# and begins no more tests when they are over.
BUDGET_VARIABLE = "MEDFORGE_TEST_MINUTES"
BUDGET_MINUTES = 80
LOGS = Path("/var/log/medforge-test")


def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/test", description="Run the static checks and the test lanes.")
    parser.add_argument("--only", action="append", choices=LANES, default=[], help="run these lanes alone")
    parser.add_argument("--without", action="append", choices=LANES, default=[], help="leave these lanes out")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    # SIGTERM ends what was started just as an error does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lanes = [lane for lane in options.only or LANES if lane not in options.without]
    try:
        sys.exit(_run(lanes, options.pytest))
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(lanes: list[str], arguments: list[str]) -> int:
    root = os.geteuid() == 0
    deadline = time.time() + 60 * _budget()
    for lane in ("host", "browser", "hostlab"):
        if lane in lanes and not root:
            say(f"lane {lane} skipped: it needs root")
            lanes.remove(lane)
    real = root and ("host" in lanes or "browser" in lanes)
    if root:
        _install(real=real, browser="browser" in lanes, database="integration" in lanes)
    if "hostlab" in lanes:
        try:
            hostlab.install_tools()
        except Failure as error:
            say(f"lane hostlab skipped: {error}")
            lanes.remove("hostlab")
    ledger = Ledger(Path("/run/medforge-test/ledger.json") if root else Path(f"/tmp/medforge-test-{os.getuid()}.json"))
    images: subprocess.Popen[bytes] | None = None
    try:
        if real:
            LOGS.mkdir(parents=True, exist_ok=True)
            hostparts.ensure_docker(ledger, LOGS)
            hostparts.ensure_zfs_daemon(ledger, LOGS)
            # Takes minutes on a bare machine and nobody waits for it before the lane `host`, whose fixtures ask again.
            with (LOGS / "images.log").open("ab") as log:
                images = subprocess.Popen(
                    [ROOT / "ops" / "images", "all"], stdout=log, stderr=log, start_new_session=True
                )
        venv = packages.virtualenv(extras="dev")
        _static_checks(venv)
        say(f"running the lanes {', '.join(lanes)}")
        return subprocess.run(
            [venv / "bin" / "python", "-m", "pytest", "--lanes", ",".join(lanes), *arguments],
            check=False,
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{venv}/bin:{os.environ.get('PATH', '')}",
                hostlab.DEADLINE_VARIABLE: str(deadline),
            },
        ).returncode
    finally:
        if images is not None and images.poll() is None:
            os.killpg(images.pid, signal.SIGTERM)
            images.wait()
        hostparts.release_host(ledger, quiet=True)


def _budget() -> float:
    """Minutes. Raises Failure."""
    given = os.environ.get(BUDGET_VARIABLE, str(BUDGET_MINUTES))
    try:
        return float(given)
    except ValueError as error:
        raise Failure(f"{BUDGET_VARIABLE}={given!r}: use a number of minutes", 78) from error


def _install(*, real: bool, browser: bool, database: bool) -> None:
    wanted = {
        **packages.python_packages(),
        "git": shutil.which("git") is not None,
        # For systemd-analyze; it does not become PID 1 by that.
        "systemd": shutil.which("systemd-analyze") is not None,
        "curl": shutil.which("curl") is not None,
        "shellcheck": shutil.which("shellcheck") is not None,
        "wrk": shutil.which("wrk") is not None,
        # The Debian package is looked at by it.
        "lintian": not database or shutil.which("lintian") is not None,
        # The server's program without the service around it: tests start it with data of their own.
        "mariadb-server-core": not database or shutil.which("mariadbd", path="/usr/sbin:/usr/bin") is not None,
        # What makes the server's data needs a program that Debian keeps with the clients.
        "mariadb-client-core": not database or shutil.which("my_print_defaults") is not None,
    }
    packages.install(wanted)
    if real:
        hostparts.install_packages()
        packages.install(
            {
                "busybox-static": Path("/bin/busybox").exists(),
                "iproute2": shutil.which("ip") is not None,
                "chromium": not browser or shutil.which("chromium") is not None,
            }
        )


def _static_checks(venv: Path) -> None:
    scripts = [path for path in run(["git", "-C", ROOT, "ls-files"]).splitlines() if _is_bash(ROOT / path)]
    for name, argv in (
        ("ruff check", [venv / "bin" / "ruff", "check", "--quiet", ROOT]),
        ("ruff format", [venv / "bin" / "ruff", "format", "--quiet", "--check", ROOT]),
        ("mypy --strict", [venv / "bin" / "mypy", "--config-file", ROOT / "pyproject.toml", *_packages()]),
        ("import contracts", [venv / "bin" / "lint-imports", "--config", ROOT / "pyproject.toml"]),
        ("shellcheck", ["shellcheck", "--external-sources", *(ROOT / script for script in scripts)]),
    ):
        if name == "shellcheck" and not succeeds(["shellcheck", "--version"]):
            say("shellcheck skipped: it is not installed")
            continue
        say(name)
        done = subprocess.run([str(part) for part in argv], check=False, cwd=ROOT)
        if done.returncode != 0:
            raise Failure(f"{name} found something; correct it and run again", 1)


def _packages() -> list[Path]:
    return [ROOT / name for name in ("medforged", "facade", "cli")]


def _is_bash(path: Path) -> bool:
    if path.suffix == ".sh":
        return True
    try:
        with path.open("rb") as file:
            return file.readline(64).startswith((b"#!/usr/bin/env bash", b"#!/bin/bash"))
    except OSError:
        return False


if __name__ == "__main__":
    main()
