"""Owns telling how a process is doing (sd_notify(3)): to systemd, or a worker to its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping

__all__ = ["Notifier"]


class Notifier:
    """Sends states to whoever has asked for them, and a sign of life at an interval; does nothing when nobody has."""

    def __init__(self, send: Callable[[bytes], object] | None, interval_seconds: float) -> None:
        self._send = send
        self.interval_seconds = interval_seconds
        """How often a sign of life is due; 0 for never."""

    @classmethod
    def to_systemd(cls, environ: Mapping[str, str]) -> Notifier:
        """To NOTIFY_SOCKET, at half the watchdog's interval."""
        address = environ.get("NOTIFY_SOCKET", "")
        address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = environ.get("WATCHDOG_USEC", "")

        def send(state: bytes) -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setblocking(False)
                notify.sendto(state, address)

        return cls(send if address else None, int(watchdog) / 2_000_000 if watchdog.isdigit() else 0.0)

    @classmethod
    def to_supervisor(cls, channel: socket.socket, interval_seconds: float) -> Notifier:
        """Over a worker's channel."""
        return cls(channel.send, interval_seconds)

    def tell(self, state: str) -> None:
        if self._send is not None:
            with contextlib.suppress(OSError):
                self._send(state.encode())

    async def keep_alive(self) -> None:
        """Runs until cancelled: as long as the event loop turns, the process is alive."""
        while self.interval_seconds and self._send is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.interval_seconds)
