"""TCP: the question whether an IDE answers."""

from medforged.adapters.tcp.readiness import TcpReadiness

__all__ = ["TcpReadiness"]
