"""Owns taking over a listening socket from systemd (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["inherited_socket"]

_FIRST_DESCRIPTOR = 3


def inherited_socket(environ: Mapping[str, str]) -> socket.socket | None:
    """The one socket that was handed over, or None. Raises ValueError when there are several or it does not listen."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(environ.get("LISTEN_FDS", "0"))
    if count == 0:
        return None
    if count > 1:
        raise ValueError(f"{count} sockets were handed over; one is expected")
    os.set_inheritable(_FIRST_DESCRIPTOR, False)
    taken = socket.socket(fileno=_FIRST_DESCRIPTOR)
    if not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("the socket that was handed over does not listen")
    return taken
