"""Owns telling systemd how the service is doing (sd_notify(3)); does nothing when nobody has asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Sends states to NOTIFY_SOCKET, and the watchdog's sign of life at half its interval."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = environ.get("WATCHDOG_USEC", "")
        self._interval = int(watchdog) / 2_000_000 if watchdog.isdigit() else 0.0

    def tell(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.setblocking(False)
            notify.sendto(state.encode(), self._address)

    async def keep_alive(self) -> None:
        """Runs until cancelled: as long as the event loop turns, the service is alive."""
        while self._interval and self._address:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._interval)
