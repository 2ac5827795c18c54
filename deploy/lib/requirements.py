"""Owns what MedForge needs of the distribution."""

from __future__ import annotations

import shutil

import hostparts
import packages
from common import say, succeeds


def install(*, from_wheels: bool) -> None:
    """Install the packages that are missing. Raises Failure."""
    wanted = {
        **hostparts.engine_packages(),
        "kmod": shutil.which("modprobe") is not None,
        "python3-venv": succeeds(["/usr/bin/python3", "-c", "import ensurepip, venv"]),
    }
    if not from_wheels:
        wanted |= packages.python_packages()
    # In Debian's section contrib, in Ubuntu's universe: a host that does not have them is told by `medforgectl doctor`.
    for package, present in (
        ("zfsutils-linux", shutil.which("zfs") is not None),
        ("python3-pyzfs", succeeds(["/usr/bin/python3", "-I", "-c", "import libzfs_core"])),
    ):
        if present:
            continue
        if packages.available(package):
            wanted[package] = False
        else:
            say(f"{package} is not offered here: enable the section contrib (Debian) or universe (Ubuntu) for ZFS")
    packages.install(wanted)
