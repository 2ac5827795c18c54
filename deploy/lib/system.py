"""Owns what a release has outside its own folder: units, users, folders, kernel modules, catalog, commands."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import places
from common import Failure, run, say, succeeds
from releases import Release

_UNITS = Path("/usr/lib/systemd/system")
_LISTS = {
    "sysusers.d": (Path("/usr/lib/sysusers.d"), "medforge.conf"),
    "tmpfiles.d": (Path("/usr/lib/tmpfiles.d"), "medforge.conf"),
    "modules-load.d": (Path("/usr/lib/modules-load.d"), "medforge.conf"),
    "catalog": (Path("/usr/lib/systemd/catalog"), "medforge.catalog"),
}


def require() -> None:
    """Raises Failure on a host that systemd does not run."""
    if not Path("/run/systemd/system").is_dir():
        raise Failure("systemd does not run this host; try MedForge there with ops/up")


def place(release: Release) -> bool:
    """Put the release's files where systemd looks, and take away what it no longer has. Whether any differed."""
    changed = False
    wanted = _files(release)
    for target, source in wanted.items():
        if target.exists() and filecmp.cmp(source, target, shallow=False):
            continue
        changed = True
        part = target.with_name(f".{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part)
        part.chmod(0o644)
        part.replace(target)
    for stale in _placed() - set(wanted):
        changed = True
        stale.unlink()
    if changed:
        run(["systemd-sysusers", _LISTS["sysusers.d"][0] / "medforge.conf"])
        run(["systemd-tmpfiles", "--create", _LISTS["tmpfiles.d"][0] / "medforge.conf"])
        # The daemon's unit tries again at each start, and says what is missing.
        succeeds(["/usr/lib/systemd/systemd-modules-load", _LISTS["modules-load.d"][0] / "medforge.conf"])
        run(["journalctl", "--update-catalog"])
        run(["systemctl", "daemon-reload"])
    return changed


def link_commands() -> None:
    """Put medforgectl where operators look for it. Raises Failure where something else has its place."""
    for name in places.COMMAND_NAMES:
        link, target = places.COMMANDS / name, places.CURRENT / "bin" / name
        if link.is_symlink() and link.readlink() == target:
            continue
        if link.exists() or link.is_symlink():
            raise Failure(f"{link} is not MedForge's; move it away and run this again", 73)
        link.symlink_to(target)


def remove(*, commands: bool) -> None:
    """Take all of it away again; users stay, since files belong to them."""
    for path in _placed():
        path.unlink()
    if commands:
        for name in places.COMMAND_NAMES:
            link = places.COMMANDS / name
            if link.is_symlink() and link.readlink() == places.CURRENT / "bin" / name:
                link.unlink()
    run(["journalctl", "--update-catalog"])
    run(["systemctl", "daemon-reload"])
    say("units, folders and modules are no longer known to systemd")


def _files(release: Release) -> dict[Path, Path]:
    """Where systemd wants it, and where the release has it."""
    source = release.home / "systemd"
    units = {_UNITS / path.name: path for path in source.iterdir() if path.is_file()}
    return units | {folder / name: source / kind / name for kind, (folder, name) in _LISTS.items()}


def _placed() -> set[Path]:
    lists = {folder / name for folder, name in _LISTS.values()}
    return {path for path in {*_UNITS.glob("medforge*"), *lists} if path.is_file() and not path.is_symlink()}
