"""Asynchronous client of the daemon's socket, used by the facade and the CLI; loads nothing of the daemon itself."""

from medforged.client.daemon import DAEMON, DEFAULT_SOCKET, FACADE, Called, DaemonClient
from medforged.client.errors import DaemonError
from medforged.client.watch import watch_forever

__all__ = ["DAEMON", "DEFAULT_SOCKET", "FACADE", "Called", "DaemonClient", "DaemonError", "watch_forever"]
