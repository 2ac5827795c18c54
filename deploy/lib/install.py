"""Owns the order of an installation and of an upgrade, and the way back."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import places
import releases
import requirements
import settings
import system
import wellness
from common import ROOT, Failure, fail, run, say, succeeds
from releases import Release

# Files, so that they are gone after a reboot, whatever ended the installation.
_DROP_INS = Path("/run/systemd/system")


def main() -> None:
    parser = argparse.ArgumentParser(prog="deploy/install", description="Install or upgrade MedForge on this host.")
    parser.add_argument("--domain", help="the site is medforge.<domain> (first installation; localhost)")
    parser.add_argument("--pool", help="the ZFS pool of the workspaces (first installation; tank)")
    parser.add_argument("--https-port", type=int, help="the public port (first installation; 443, for localhost 8443)")
    parser.add_argument("--wheels", type=Path, help="folder with all Python packages: nothing is fetched")
    parser.add_argument("--no-packages", action="store_true", help="install no packages of the distribution")
    parser.add_argument("--no-images", action="store_true", help="build no container images")
    parser.add_argument("--packaged", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Nothing that is made here may be written by others, whatever the caller's habits are.
    os.umask(0o022)
    try:
        _install(options)
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _install(options: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise Failure("this needs root: use sudo", 77)
    system.require()
    if options.wheels is not None and not options.wheels.is_dir():
        raise Failure(f"--wheels {options.wheels}: there is no such folder", 66)
    wishes = settings.Wishes(options.domain, options.pool, options.https_port)
    settings.validate(wishes)
    held = releases.lock()
    if not options.no_packages and not options.packaged:
        requirements.install(from_wheels=options.wheels is not None)
    before = releases.current()
    release = releases.make(ROOT, options.wheels and options.wheels.absolute())
    written = settings.ensure(ROOT, wishes)
    try:
        settings.check(release)
    except Failure:
        for path in written:
            path.unlink()
        raise
    if before is None or (before == release and not _serving()):
        _first(release, build_images=not options.no_images and not options.packaged)
    elif before == release:
        _again(release)
    else:
        _upgrade(release, before)
    if not options.packaged:
        system.link_commands()
    os.close(held)


def _serving() -> bool:
    return succeeds(["systemctl", "is-active", "--quiet", places.DAEMON])


def _first(release: Release, *, build_images: bool) -> None:
    """Start on a host where nothing of MedForge runs. Databases that a removal has left are copied all the same."""
    try:
        _copy_before_start(release, _copies(release.name), None)
        _start(release, build_images=build_images)
    finally:
        _forget_drop_ins()


def _start(release: Release, *, build_images: bool) -> None:
    releases.put_in_place(release)
    system.place(release)
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "start", "docker.service"])
    if build_images:
        say("building the container images (minutes, the first time)")
        told = run([release.home / "ops" / "images", "all"])
        pack = next((line for line in told.splitlines() if line.startswith("medforge-pack-default@sha256:")), None)
        if pack is not None:
            settings.pin_default_pack(pack.strip())
    run(["systemctl", "enable", "--quiet", *places.ENABLED])
    run(["systemctl", "restart", *places.SOCKETS])
    run(["systemctl", "start", "--no-block", places.TARGET])
    found = wellness.await_well(release, None)
    releases.forget_others({release})
    say(f"MedForge {release.version} runs")
    for name, text in found.failing.items():
        say(f"  not yet well: {name}: {text}")
    say("  `medforgectl doctor` tells what this host still lacks")
    say("  `medforgectl users create you@example.org --admin --generate` makes the first admin")


def _again(release: Release) -> None:
    """The same release: put back what may have been lost of it, and start what does not run."""
    if system.place(release):
        say("units, folders or modules were missing or changed and have been put back")
    run(["systemctl", "enable", "--quiet", *places.ENABLED])
    run(["systemctl", "start", "--no-block", places.TARGET])
    wellness.await_well(release, None)
    say(f"MedForge {release.version} is up to date")


@dataclass(frozen=True)
class _Copies:
    """Where the databases are and where an upgrade copies them to; None for one that is no file."""

    daemon: Path
    daemon_folder: Path
    facade: Path | None
    facade_folder: Path


def _upgrade(release: Release, before: Release) -> None:
    """Replace the release that serves. Raises Failure when the new one was not well."""
    say(f"upgrading {before.name} to {release.name}; sessions go on")
    was = wellness.look(before)
    copies = _copies(before.name)
    try:
        _copy_before_start(release, copies, before)
        _switch(release)
        wellness.await_well(release, was if was.serves else None)
    except (Failure, OSError, KeyboardInterrupt, SystemExit) as error:
        say(f"going back to {before.name}: {error or 'interrupted'}")
        _go_back(release, before, was, copies)
        raise Failure(
            f"release {release.name} was not well, {before.name} serves again: {error}\n"
            f"  what was written meanwhile, and the databases' copies: {copies.daemon_folder}, {copies.facade_folder}",
            1,
        ) from error
    finally:
        _forget_drop_ins()
    run(["systemctl", "enable", "--quiet", *places.ENABLED])
    _renew_caddy()
    releases.forget_others({release, before})
    say(f"MedForge {release.version} runs")
    say(f"  the databases as they were before: {copies.daemon_folder}, {copies.facade_folder}")


def _switch(release: Release) -> None:
    releases.put_in_place(release)
    system.place(release)
    run(["systemctl", "daemon-reload"])
    # A unit that has failed or is waiting to try again starts at once. Callers wait at the sockets meanwhile.
    for unit in (places.DAEMON, places.FACADE):
        run(["systemctl", "reset-failed", unit], check=False)
        wellness.restart(unit)


def _go_back(release: Release, before: Release, was: wellness.Wellness, copies: _Copies) -> None:
    _drop_in(places.DAEMON, f"+{_command(release, 'put-back')} {copies.daemon} {copies.daemon_folder}")
    if copies.facade is not None:
        _drop_in(places.FACADE, f"{_command(release, 'put-back')} {copies.facade} {copies.facade_folder}")
    try:
        _switch(before)
        wellness.await_well(before, was if was.serves else None)
    except Failure as error:
        raise Failure(
            f"release {release.name} was not well, and neither is {before.name} after going back to it: {error}; "
            f"the databases as they were: {copies.daemon_folder}, {copies.facade_folder}",
            1,
        ) from error
    releases.forget_others({before})


def _copy_before_start(release: Release, copies: _Copies, before: Release | None) -> None:
    """Let systemd copy each database that there is, between the end of one program and the start of the next.

    Accounts in a database server are backed up by the program that ends, and restored by hand (how-to/install.md); as
    the service, since nobody else has the password. Where no program ends there is none that knows the tables.
    """
    if copies.daemon.exists():
        _drop_in(places.DAEMON, f"+{_command(release, 'take')} {copies.daemon} {copies.daemon_folder}")
    if copies.facade is not None and copies.facade.exists():
        _drop_in(places.FACADE, f"{_command(release, 'take')} {copies.facade} {copies.facade_folder}")
    elif copies.facade is None and before is not None:
        program = before.program("medforge-facade")
        _drop_in(places.FACADE, f"{_command(release, 'back-up')} {program} {copies.facade_folder}")


def _copies(name: str) -> _Copies:
    stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-before-{name}"
    daemon = settings.read("medforged.toml").get("daemon", {}).get("state_directory", str(places.DAEMON_STATE))
    default = f"sqlite+aiosqlite:///{places.FACADE_STATE}/facade.db"
    url = settings.read("facade.toml").get("database", {}).get("url", default)
    _, file, path = str(url).partition("sqlite+aiosqlite:///")
    return _Copies(
        Path(daemon) / "medforged.db",
        places.DAEMON_STATE / "upgrades" / stamp,
        Path(path) if file else None,
        places.FACADE_STATE / "upgrades" / stamp,
    )


def _command(release: Release, action: str) -> str:
    library = release.home / "deploy" / "lib"
    return (
        f"/usr/bin/env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={release.home}/ops/lib "
        f"/usr/bin/python3 {library}/databases.py {action}"
    )


def _drop_in(unit: str, command: str) -> None:
    folder = _DROP_INS / f"{unit}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "50-upgrade.conf").write_text(f"[Service]\nExecStartPre={command}\n")


def _forget_drop_ins() -> None:
    for unit in (places.DAEMON, places.FACADE):
        (_DROP_INS / f"{unit}.d" / "50-upgrade.conf").unlink(missing_ok=True)
    run(["systemctl", "daemon-reload"])


def _renew_caddy() -> None:
    """Start it where it does not run. One that runs goes on as it is: to replace it would drop every open websocket."""
    if not succeeds(["systemctl", "is-active", "--quiet", places.CADDY]):
        run(["systemctl", "start", "--no-block", places.CADDY])


if __name__ == "__main__":
    main()
