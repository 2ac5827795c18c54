"""Owns the sockets that a probe sends and listens with. Blocking, every wait bounded."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from medforged.adapters.isolation.frames import Frame

__all__ = ["Tap", "connects", "datagrams", "device_socket"]

_ANY_PROTOCOL = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
_LARGEST_FRAME = 65536


class Tap:
    """Sends frames on an interface as they are, and sees what arrives there before any packet filter does."""

    def __init__(self, interface: str, protocol: int = _ANY_PROTOCOL) -> None:
        # Bound before anything can arrive: a packet socket hears every interface until then.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((interface, protocol))
        self._socket.setblocking(False)
        self._seen: list[bytes] = []

    def close(self) -> None:
        self._socket.close()

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self._socket.send(frame.data)

    def wait_for(self, frame: Frame, seconds: float) -> bool:
        """Whether a frame arrives within this time. What was sent before it on the same way has then arrived too."""
        deadline = time.monotonic() + seconds
        while not self.saw(frame):
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not _readable(self._socket, remaining):
                return self.saw(frame)
        return True

    def saw(self, frame: Frame) -> bool:
        self._drain()
        return any(frame.token in data for data in self._seen)

    def arrived(self, frames: Collection[Frame]) -> tuple[str, ...]:
        """The labels of those frames that have arrived."""
        self._drain()
        return tuple(frame.label for frame in frames if any(frame.token in data for data in self._seen))

    def answers(self, source: IPv4Address, protocols: Mapping[str, int], seconds: float) -> list[str]:
        """The labels of those IPv4 protocols that arrive from this address within this time."""
        deadline = time.monotonic() + seconds
        labels: list[str] = []
        while len(labels) < len(protocols):
            self._drain()
            seen = {data[23] for data in self._seen if _is_ipv4_from(data, source)}
            labels = [label for label, number in protocols.items() if number in seen]
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            _readable(self._socket, remaining)
        return labels

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = self._socket.recvfrom(_LARGEST_FRAME)
                if address[2] != _OUTGOING:
                    self._seen.append(data)


def device_socket(family: int, interface: str) -> socket.socket:
    """A UDP socket that hears every address of this host, but through one interface only."""
    listener = socket.socket(family, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("", 0))
    listener.setblocking(False)
    return listener


def datagrams(listener: socket.socket, seconds: float) -> tuple[bytes, ...]:
    """What has come in, waiting at most this long for the first."""
    received: list[bytes] = []
    if _readable(listener, seconds):
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(listener.recv(_LARGEST_FRAME))
    return tuple(received)


def connects(address: IPv4Address, port: int, seconds: float) -> str | None:
    """Try a TCP connection; None when it is made, otherwise why not."""
    try:
        with socket.create_connection((str(address), port), timeout=seconds):
            return None
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _readable(one: socket.socket, seconds: float) -> bool:
    # Not select(2), which knows no descriptor above 1023: a daemon with many watchers has such.
    waiting = select.poll()
    waiting.register(one, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _is_ipv4_from(data: bytes, source: IPv4Address) -> bool:
    return len(data) >= 34 and data[12:14] == b"\x08\x00" and data[26:30] == source.packed
