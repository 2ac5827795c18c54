"""Owns who is at the other end of a connection, as the kernel says it."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

__all__ = ["Peer", "peer_of"]

# Not in Python's socket module; asm-generic/socket.h, Linux 4.13.
_SO_PEERGROUPS = 59
_UCRED = struct.Struct("3i")
# Python's getsockopt takes no larger buffer.
_GROUPS_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, with its user and all its groups at the time it did."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """Raises OSError when the connection has no credentials.

    Of a process in more than 256 supplementary groups only the primary one counts.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raw = b""
    groups = struct.unpack(f"{len(raw) // 4}I", raw)
    return Peer(pid, uid, frozenset((gid, *groups)))
