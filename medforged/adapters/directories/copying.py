"""Owns the programs that copy and remove what tenants have made: their arguments, and as whom they run.

A copy runs as the session's owner, not as root. `cp` opens what it copies by path; were a directory replaced by a
link while it does, root would follow it anywhere on the host, and the owner only to what everybody may read. For the
same reason nothing that the owner may not make (a device node) can come to be in a copy. Links are copied as links;
hard links, sparse files, times, modes and extended attributes are kept; where the file system can, blocks are shared.
Removing runs as ourselves: `rm` descends by descriptor, never through a link, and read-only directories go too.
"""

from __future__ import annotations

import os

from medforged.adapters.owned_directory import Owner

__all__ = ["copy_command", "flush_command", "remove_command"]


def copy_command(source: str, target: str, owner: Owner) -> list[str]:
    """Copy the contents of one directory into another, empty one; both relative to the directory it runs in."""
    return [
        *_become(owner),
        *("cp", "--archive", "--reflink=auto", "--one-file-system", "--no-target-directory", "--"),
        source,
        target,
    ]


def flush_command(target: str) -> list[str]:
    """Write the file system that holds `target` to its device, so that a copy outlives a power cut."""
    return ["sync", "--file-system", target]


def remove_command(target: str) -> list[str]:
    return ["rm", "--recursive", "--force", "--one-file-system", "--", target]


def _become(owner: Owner) -> list[str]:
    """Arguments that drop every privilege; none where we are that user already and have nothing to drop."""
    if (os.geteuid(), os.getegid()) == (owner.uid, owner.gid):
        return []
    return [
        "setpriv",
        f"--reuid={owner.uid}",
        f"--regid={owner.gid}",
        "--clear-groups",
        "--inh-caps=-all",
        "--no-new-privs",
        "--",
    ]
