"""Owns what the daemon needs from the host's packet filter and bridge."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Protocol

from medforged.domain.adapters import AdapterDescription
from medforged.domain.containers import SessionNetwork
from medforged.domain.isolation import IsolationReport, Stray

__all__ = ["Isolation"]


class Isolation(Protocol):
    """Keeps sessions apart. On the sessions' bridge only `proxy` may open a connection to a session, on any
    port or protocol, IPv6 included; sessions may open none to the host. Raises IsolationError."""

    def describe(self) -> AdapterDescription: ...

    async def ensure(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        """Bring every layer into place and say what had to be changed; cheap when nothing has to be."""
        ...

    async def verify(self, network: SessionNetwork, proxy: IPv4Address) -> IsolationReport:
        """Probe with live traffic between endpoints of its own on the bridge, and remove them again."""
        ...

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait until something about the host's interfaces has changed, which makes an `ensure` worthwhile.

        False after the timeout. Changes between two calls are not lost. Never raises for a failure of the host.
        """
        ...

    async def strays(self, network: SessionNetwork, proxy: IPv4Address) -> tuple[Stray, ...]:
        """What is left of isolation that nothing explains, by name; looks and changes nothing."""
        ...

    async def remove_stray(self, network: SessionNetwork, proxy: IPv4Address, stray: Stray) -> None:
        """Remove it if it is still one: what is explained by now stays. Absent: no error."""
        ...

    async def remove(self, network: SessionNetwork) -> None:
        """Take away the daemon's own chains and port settings, and nothing else."""
        ...

    async def close(self) -> None:
        """Give up what the adapter holds in this process; the layers stay in place."""
        ...
