"""Owns the translation of docker-py's exceptions into the daemon's errors: one sentence and its remedy each.

The engine has no error codes beyond HTTP's, so its sentences are matched. They are those of moby 20.10 to 28; one
that is not known is passed on as it is, on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import requests
from docker.errors import APIError, DockerException

from medforged.domain.errors import ContainerError, ContainerUnavailable

__all__ = ["explanation", "is_absent", "translated"]

_MAX_WORDS = 400

# What the engine says -> what it means and what to do.
_KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"no space left on device",
        "the disk of the container engine is full; see `docker system df`, and free space with `docker image prune`",
    ),
    (
        r"pool overlaps with other one",
        "another network of the container engine uses these addresses; remove it, or configure another subnet",
    ),
    (
        r"networks have same bridge name",
        "another network of the container engine uses this bridge; remove it, or configure another bridge name",
    ),
    (
        r"bind source path does not exist",
        "the workspace's directory is not on the host; check that its dataset is mounted",
    ),
    (
        r"not a shared or slave mount",
        "the workspace lies on a mount that is not shared; run `mount --make-rshared /` and try again",
    ),
    (
        r"could not select device driver \"?nvidia",
        (
            "the container engine has no NVIDIA runtime; install nvidia-container-toolkit, run "
            "`nvidia-ctk runtime configure --runtime=docker` and restart the engine"
        ),
    ),
    (
        r"could not select device driver \"?cdi|CDI device injection|unresolvable CDI",
        (
            "the container engine knows no CDI device of this GPU; run `nvidia-ctk cdi generate "
            "--output=/var/run/cdi/nvidia.yaml`, or enable nvidia-cdi-refresh.service"
        ),
    ),
    (
        r"no available IPv4 addresses",
        "every address of its network is in use; stop sessions, or configure a larger range",
    ),
    (
        r"network \S+ not found",
        "its network does not exist; restart medforged, which makes it again",
    ),
    (
        r"cannot start a paused container",
        "somebody has paused it; run `docker unpause` on it, or stop it",
    ),
    (
        r"docker-init.*not found|no such file or directory.*docker-init",
        "the container engine lacks its init program; install the package that has docker-init (Debian: tini)",
    ),
    (
        r"range of CPUs is from",
        "the configuration gives a session more CPUs than this host has; lower it",
    ),
    (
        r"minimum memory limit",
        "the configuration gives a session too little memory; raise it",
    ),
    (
        r"unable to start container process: exec",
        "the program of the image cannot be run; check the pack's entry point and architecture",
    ),
    (
        r"setting rlimit.*operation not permitted",
        "the container engine may not open that many files itself; raise LimitNOFILE of its service",
    ),
    (
        r"containerd\.sock|error while dialing",
        "containerd does not answer the container engine; see `systemctl status containerd`",
    ),
)
_TABLE = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), meaning) for pattern, meaning in _KNOWN)


def translated(action: str, error: Exception, socket: Path) -> ContainerError:
    """The daemon's error for an exception of docker-py. `action` completes "cannot …"; `socket` is the engine's."""
    if isinstance(error, APIError):
        words = explanation(error)
        for pattern, meaning in _TABLE:
            if pattern.search(words):
                return ContainerError(f"cannot {action}: {meaning}")
        return ContainerError(f"cannot {action}: the container engine refused it ({error.status_code}): {words}")
    causes = tuple(_causes(error))
    if any(isinstance(cause, requests.exceptions.Timeout | TimeoutError) for cause in causes):
        return ContainerUnavailable(
            f"cannot {action}: the container engine did not answer in time; see `systemctl status docker`"
        )
    for cause in causes:
        if isinstance(cause, PermissionError):
            return ContainerUnavailable(
                f"cannot {action}: no permission for {socket}; run medforged as root, as its unit file does"
            )
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return ContainerUnavailable(
                f"cannot {action}: nothing listens at {socket}; start the container engine: `systemctl start docker`"
            )
    return ContainerUnavailable(
        f"cannot {action}: the connection to the container engine at {socket} failed ({_one_line(str(error))}); "
        "see `systemctl status docker`"
    )


def explanation(error: APIError) -> str:
    """The engine's own words, on one line of bounded length."""
    return _one_line(str(error.explanation or error))


def is_absent(error: DockerException, kind: str) -> bool:
    """Whether the engine says that the thing named in the request does not exist. A 404 alone does not say that:
    starting a container whose network is gone is answered with one as well."""
    return isinstance(error, APIError) and error.status_code == 404 and f"no such {kind}" in explanation(error).lower()


def _one_line(words: str) -> str:
    return " ".join(words.split())[:_MAX_WORDS]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it was raised from, and the exceptions that libraries pack into arguments."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None), *current.args)
        waiting.extend(found for found in inner if isinstance(found, BaseException))
