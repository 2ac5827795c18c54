"""Owns scratch pools for tests on real ZFS: a pool of one file, in the kernel or in user space, gone afterwards.

    with scratch_pool() as pool:
        store = command_store(pool.name, clock, mount_root=pool.directory / "workspaces")

The pool is in no cache file, so a restarted daemon forgets it, and its own root dataset is not mounted. Everything
lies in one directory that anybody may pass through, as sessions' owners have to.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_MIB = 1024 * 1024
_BUSY_SECONDS = 15.0
# As the product's commands: zfs-fuse bears one change at a time, from all tests of the host together.
TURNS = () if Path("/dev/zfs").exists() else ("flock", "-F", "/run/medforge-zfs-fuse.lock")


@dataclass(frozen=True)
class ScratchPool:
    """A pool with nothing in it, and a directory for mount points."""

    name: str
    directory: Path


@contextlib.contextmanager
def scratch_pool(*, prefix: str = "mfws", size_bytes: int = 512 * _MIB) -> Iterator[ScratchPool]:
    """Make a pool of this size (the file is sparse), and destroy it with all that was made in it."""
    answer = _run("zpool", "list", "-H", "-o", "name")
    if answer.returncode:
        pytest.fail(f"ZFS does not answer: {answer.stderr.strip()}; `modprobe zfs`, or start zfs-fuse")
    name = f"{prefix}{secrets.token_hex(4)}"
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    directory.chmod(0o755)
    image = directory / "pool.img"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    try:
        _patiently("zpool", "create", "-o", "cachefile=none", "-m", "none", name, str(image))
        try:
            yield ScratchPool(name, directory)
        finally:
            _patiently("zpool", "destroy", "-f", name)
    finally:
        shutil.rmtree(directory)


def zfs(*arguments: str) -> str:
    """Run `zfs` and return what it printed; a failure fails the test."""
    return _patiently("zfs", *arguments)


def restart(pool: ScratchPool) -> None:
    """Export and import a pool, as at a shutdown and a boot: everything is unmounted and mounted again."""
    _patiently("zpool", "export", pool.name)
    _patiently("zpool", "import", "-o", "cachefile=none", "-d", str(pool.directory), pool.name)


def _patiently(*argv: str) -> str:
    """Run a command, again while something is busy: what was used or unmounted just now can be for a moment."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while (answer := _run(*TURNS, *argv)).returncode:
        assert "busy" in answer.stderr, answer.stderr
        assert time.monotonic() < deadline, answer.stderr
        time.sleep(0.05)
    return answer.stdout


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)
