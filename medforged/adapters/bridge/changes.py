"""Owns hearing of changes to the host's interfaces: the kernel's link messages, read as hints and nothing more.

The group of link messages has everything that the bridge layer can lose: an interface that comes or goes, joins or
leaves a bridge, and, as messages of the bridge family, the flags of a port. Its message about a port begins with the
port's name, like every other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import structlog

__all__ = ["LinkChanges", "subscribed"]

_LINK_GROUP = 1  # RTMGRP_LINK, linux/rtnetlink.h
_NEW_LINK = 16  # RTM_NEWLINK
_NAME = 3  # IFLA_IFNAME, which the kernel puts first into every message of the group
# struct nlmsghdr, struct ifinfomsg, then the first attribute's struct rtattr and at most 16 bytes of name. What is
# behind it in a message is never copied.
_ATTRIBUTES = 32
_HEAD = _ATTRIBUTES + 4 + 16
# Room for what a probe causes, some 60 messages, beside what others do.
_BUFFER_BYTES = 1024 * 1024
# The kernel tells of a bridge that has lost its last carrier at most a second later (net/core/link_watch.c).
_LATE_SECONDS = 2.0
# Twice as many as fit into the buffer; reading one takes 2 µs.
_AT_ONCE = 1000


def subscribed() -> socket.socket:
    """A netlink socket that hears of links. Raises OSError."""
    opened = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # as much of it as the host permits
        opened.bind((0, _LINK_GROUP))
    except BaseException:
        opened.close()
        raise
    return opened


class LinkChanges:
    """Changes since the last call of `wait`, for one caller at a time, on the event loop.

    The kernel's buffer keeps what nobody waits for, so a burst costs nothing until it is asked for, and its overflow
    is a change like any other. A socket that cannot be had is tried again with every call.
    """

    def __init__(self, subscribed: Callable[[], socket.socket] = subscribed) -> None:
        self._open = subscribed
        self._socket: socket.socket | None = None
        self._closed = False
        self._log: Any = structlog.get_logger("medforged")
        self._told = False
        self._pending = False
        self._woken = asyncio.Event()
        self._head = bytearray(_HEAD)
        # What is of our own making, and until when the bridge's own messages are.
        self._ports: frozenset[bytes] = frozenset()
        self._bridge = b""
        self._bridge_until = 0.0

    async def wait(self, timeout_seconds: float) -> bool:
        """True as soon as there was a change, False after the timeout. However many there were by now are one.

        The first call, and the first after a failure, is True at once: what came before is not known.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                self._listen()
                while not self._take():
                    await self._readable()
                return True
        return False

    @contextlib.contextmanager
    def own(self, bridge: str, ports: Collection[str]) -> Iterator[None]:
        """Around what makes and removes these ports of the bridge, which is no change then.

        Neither is that the bridge itself looks different meanwhile: who does this looks at it afterwards.
        """
        self._ports = frozenset(port.encode() for port in ports)
        self._bridge, self._bridge_until = bridge.encode(), math.inf
        try:
            yield
            self._drain()
        except BaseException:
            self._pending = True  # nobody looks now
            raise
        finally:
            self._ports = frozenset()
            self._bridge_until = min(self._bridge_until, time.monotonic() + _LATE_SECONDS)
            self._woken.set()  # what was read here wakes nobody otherwise

    def close(self) -> None:
        """Nothing is heard of from now on; who waits does so until the timeout."""
        self._closed = True
        self._let_go()

    def _listen(self) -> None:
        if self._socket is not None or self._closed:
            return
        try:
            self._socket = self._open()
        except OSError as error:
            self._fail(error)
        else:
            self._told = False
            self._missed()

    def _missed(self) -> None:
        """Anything can have happened, to the bridge too."""
        self._pending, self._bridge_until = True, 0.0

    def _take(self) -> bool:
        self._drain()
        taken, self._pending = self._pending, False
        return taken

    def _drain(self) -> None:
        """Read what is there; whoever writes faster than this reads has changed something."""
        for _ in range(_AT_ONCE):
            if self._socket is None:
                return
            try:
                length = self._socket.recv_into(self._head)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    self._fail(error)
                    return
                self._missed()
            else:
                self._pending = not self._is_own(length) or self._pending
        self._pending = True

    def _is_own(self, length: int) -> bool:
        if length < _HEAD or time.monotonic() > self._bridge_until:
            return False
        (kind,) = struct.unpack_from("=H", self._head, 4)
        size, attribute = struct.unpack_from("=HH", self._head, _ATTRIBUTES)
        name = bytes(self._head[_ATTRIBUTES + 4 : _ATTRIBUTES + size]).partition(b"\0")[0]
        if name == self._bridge and kind != _NEW_LINK:
            self._bridge_until = 0.0  # a bridge of this name will be another
        return attribute == _NAME and (name in self._ports or (name == self._bridge and kind == _NEW_LINK))

    async def _readable(self) -> None:
        """Only waits: what is read by a callback could be lost to a timeout at the same moment."""
        loop, waited_for = asyncio.get_running_loop(), self._socket
        self._woken.clear()
        if waited_for is not None:
            loop.add_reader(waited_for.fileno(), self._woken.set)
        try:
            await self._woken.wait()
        finally:
            if waited_for is not None and waited_for is self._socket:
                loop.remove_reader(waited_for.fileno())

    def _fail(self, error: OSError) -> None:
        if not self._told:
            problem = f"cannot watch the host's interfaces: {error.strerror or error}; what is lost is found later"
            self._log.warning("isolation.unwatched", error=problem)
        self._told = True
        self._let_go()

    def _let_go(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
        self._socket = None
        self._woken.set()
