"""Owns opening the Unix sockets that the daemon listens on, where nobody hands one over."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

from medforged.contract.exitcodes import ExitCode
from medforged.domain.errors import StartupFailed

__all__ = ["BACKLOG", "listen_on"]

BACKLOG = 128


def listen_on(path: Path, group: str, setting: str) -> socket.socket:
    """A listening socket of mode 0660, of `group` unless that is empty. `setting` is what names the path.

    A dead daemon's file is replaced, a living one's is left alone. Raises StartupFailed.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path, setting)
        # Nobody can connect between bind and chmod.
        previous = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        if group:
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
        listener.listen(BACKLOG)
    except KeyError as error:
        listener.close()
        path.unlink(missing_ok=True)
        raise StartupFailed(
            f"cannot open the socket {path}: there is no group {group!r}; `groupadd --system {group}` makes it",
            ExitCode.CONFIG,
        ) from error
    except OSError as error:
        listener.close()
        raise StartupFailed(
            f"cannot open the socket {path}: {error.strerror or error}; stop what uses it or set {setting}",
            ExitCode.UNAVAILABLE,
        ) from error
    except StartupFailed:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path, setting: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartupFailed(
            f"cannot open the socket {path}: a file that is no socket is there; remove it or set {setting}",
            ExitCode.UNAVAILABLE,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            # Busy is alive.
            pass
    raise StartupFailed(
        f"cannot open the socket {path}: another medforged answers there; stop it or set {setting}",
        ExitCode.UNAVAILABLE,
    )
