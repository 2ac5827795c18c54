"""Owns which address a request comes from: the one that the trusted proxy tells, never one that a client tells.

Over the Unix socket, which only the proxy can open, it is the last entry of X-Forwarded-For, because Caddy writes that
one. Over TCP it is the peer, unless the peer is one of `listen.trusted_proxies`. Other headers (Forwarded, X-Real-IP)
are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import structlog
from aiohttp import web

__all__ = ["Addresses", "ClientAddress"]

_log = structlog.get_logger()

# Who has one IPv6 address has all of its /64 (RFC 6177), and a site is given a /48 at most.
_SUBNET_BYTES = 8
_SITE_BYTES = 6

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Where a request comes from; None when nobody has told it: all such are counted as one."""

    told: Address | None

    @property
    def key(self) -> bytes:
        """What is counted as one address: an IPv4 address, or a /64 of IPv6."""
        return self._key(_SUBNET_BYTES)

    @property
    def network(self) -> bytes:
        """What is counted as one network: an IPv4 address, or a /48 of IPv6."""
        return self._key(_SITE_BYTES)

    def _key(self, bytes_of_ipv6: int) -> bytes:
        if self.told is None:
            return b"?"
        if isinstance(self.told, IPv4Address):
            return b"4" + self.told.packed
        return b"6" + self.told.packed[:bytes_of_ipv6]

    def __str__(self) -> str:
        return str(self.told) if self.told is not None else "unknown"


class Addresses:
    """Reads addresses of requests. `trusted`: addresses or networks whose X-Forwarded-For is believed."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted: tuple[Network, ...] = tuple(ip_network(network) for network in trusted)
        self._untold = False

    def of(self, request: web.BaseRequest) -> ClientAddress:
        """Entries of the header are read from the last one, for as long as a trusted proxy has written them."""
        if request.remote is None:
            # A TCP client that had gone when it was accepted; no end of a Unix socket is that.
            return ClientAddress(None)
        # The other end of a Unix socket has no address.
        peer = _address(request.remote)
        if peer is not None and not self._trusts(peer):
            return ClientAddress(peer)
        found = peer
        for entry in reversed(_entries(request)):
            told = _address(entry)
            if told is None:
                break
            found = told
            if not self._trusts(told):
                break
        if found is None and not self._untold:
            self._untold = True
            _log.warning(
                "address.untold",
                reason="the proxy says no address in X-Forwarded-For, so that all are limited as one",
                remedy="have the proxy write the header",
            )
        return ClientAddress(found)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _entries(request: web.BaseRequest) -> list[str]:
    """A header that comes several times is one list (RFC 9110 section 5.3)."""
    return [entry.strip(" \t") for line in request.headers.getall("X-Forwarded-For", ()) for entry in line.split(",")]


def _address(text: str) -> Address | None:
    """An address without its zone; an IPv4 address in IPv6 form is an IPv4 address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
