"""Owns making the Unix socket that a keeper listens on, in place of what a dead process or another keeper has left."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from pathlib import Path

from common import Failure

CONFIG = 78
# Room for everybody who connects while no program accepts; the kernel allows no more than net.core.somaxconn.
BACKLOG = 4096
_PROBE_SECONDS = 2.0


def listen(path: Path, mode: int, group: str, *, replace: bool) -> socket.socket:
    """A listening socket of this name; with `replace` even where somebody listens by now. Raises Failure."""
    if not replace:
        _require_free(path)
    part = path.with_name(path.name + ".part")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # Nobody may connect before group and mode are set, and at no moment is there no socket of this name.
    mask = os.umask(0o177)
    try:
        part.unlink(missing_ok=True)
        listener.bind(str(part))
        if group:
            os.chown(part, -1, grp.getgrnam(group).gr_gid)
        part.chmod(mode)
        listener.listen(BACKLOG)
        part.replace(path)
    except (KeyError, OSError) as error:
        listener.close()
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, KeyError):
            raise Failure(f"there is no group {group!r}; `groupadd --system {group}` makes it", CONFIG) from error
        raise Failure(f"{path} cannot be made: {error.strerror or error}; see who may write to its folder") from error
    finally:
        os.umask(mask)
    return listener


def _require_free(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise Failure(f"{path} is in the way and is no socket; move it away", CONFIG)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            # Busy is alive.
            pass
    raise Failure(f"another process listens at {path}; stop it")
