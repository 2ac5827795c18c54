"""systemd's protocols: readiness and watchdog notification, and sockets handed over at start."""

from medforged.adapters.systemd.listen import inherited_socket
from medforged.adapters.systemd.notify import Notifier

__all__ = ["Notifier", "inherited_socket"]
