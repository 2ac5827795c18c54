"""Owns the check that the facade has no power over the host: not root, and no way to Docker's socket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from facade.startup import StartupFailed
from medforged.contract.exitcodes import ExitCode

__all__ = ["DOCKER_SOCKETS", "check_privileges"]

DOCKER_SOCKETS = (Path("/var/run/docker.sock"), Path("/run/docker.sock"))


def check_privileges(user_id: int, docker_sockets: Sequence[Path] = DOCKER_SOCKETS) -> None:
    """Raises StartupFailed for a process that could take over the host if the facade were taken over."""
    if user_id == 0:
        raise StartupFailed(
            "cannot start as root: the facade faces the public and must have no power over the host; "
            "run it as its own user, or set process.allow_privileged on a machine that is for trials only",
            ExitCode.NO_PERMISSION,
        )
    for path in docker_sockets:
        if os.access(path, os.W_OK, effective_ids=True):
            raise StartupFailed(
                f"cannot start as a user that can open {path}: that is as good as root; "
                "take the user out of the docker group, or set process.allow_privileged for trials",
                ExitCode.NO_PERMISSION,
            )
