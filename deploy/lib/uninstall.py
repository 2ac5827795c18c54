"""Owns taking MedForge off a host. What belongs to people is kept unless it is asked for by name."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys

import places
import releases
import settings
import system
from common import Failure, fail, run, say, succeeds
from releases import Release

_DATA = (places.SETTINGS, places.DAEMON_STATE, places.FACADE_STATE, places.CADDY_STATE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="deploy/uninstall", description="Take MedForge off this host.")
    parser.add_argument(
        "--remove-data", action="store_true", help="remove settings, accounts, records and certificates"
    )
    parser.add_argument(
        "--destroy-workspaces", metavar="DATASET", help="destroy everybody's files; name the dataset, to be sure"
    )
    parser.add_argument("--packaged", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        _uninstall(options)
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _uninstall(options: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise Failure("this needs root: use sudo", 77)
    system.require()
    workspaces = _workspaces()
    if options.destroy_workspaces not in (None, workspaces):
        raise Failure(f"--destroy-workspaces {options.destroy_workspaces}: the workspaces are in {workspaces}", 2)
    held = releases.lock()
    release = releases.current()
    if release is not None:
        _refuse_with_sessions(release)
        _stop(release)
    system.remove(commands=not options.packaged)
    if options.destroy_workspaces:
        say(f"destroying {workspaces}")
        run(["zfs", "destroy", "-r", workspaces])
    os.close(held)
    shutil.rmtree(places.LIBRARY, ignore_errors=True)
    if options.remove_data:
        for path in _DATA:
            shutil.rmtree(path, ignore_errors=True)
        say("settings, accounts, records and certificates are removed")
    else:
        say(f"kept: {', '.join(str(path) for path in _DATA if path.exists())}")
    if not options.destroy_workspaces and succeeds(["zfs", "list", workspaces]):
        say(f"kept: the workspaces in {workspaces}; `zfs destroy -r {workspaces}` destroys them, snapshots included")


def _workspaces() -> str:
    told = settings.read("medforged.toml").get("workspaces", {})
    return f"{told.get('pool', 'tank')}/{told.get('root', 'medforge/workspaces')}"


def _refuse_with_sessions(release: Release) -> None:
    """Whoever works in one loses nothing: it has to be stopped first, with its snapshot."""
    try:
        done = subprocess.run(
            [release.program("medforgectl"), "status", "-o", "json"],
            check=False, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        active = sum(json.loads(done.stdout)["sessions_by_status"].values())
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError):
        # Without a daemon the containers themselves say so, below.
        return
    if active:
        raise Failure(f"{active} sessions are active; end them with `medforgectl sessions stop --all --wait`", 75)


def _stop(release: Release) -> None:
    say("stopping")
    # Sockets first: nobody starts the programs again by asking.
    run(["systemctl", "stop", places.TARGET, *places.SOCKETS, places.CADDY, places.FACADE, places.DAEMON], check=False)
    try:
        run([release.program("medforged"), "--config", places.SETTINGS / "medforged.toml", "--release"])
    except Failure as error:
        if not succeeds(["docker", "info"]):
            say(f"rules and network stay, since Docker does not answer: {error}")
        else:
            run(["systemctl", "start", *places.SOCKETS, places.DAEMON, places.FACADE, places.CADDY], check=False)
            raise
    run(["systemctl", "disable", "--quiet", *places.ENABLED])


if __name__ == "__main__":
    main()
