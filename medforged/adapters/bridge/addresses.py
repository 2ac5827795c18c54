"""Owns telling whether a process's network namespace holds an address, without entering it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

__all__ = ["holds_address", "local_addresses"]


def holds_address(process_id: int, address: IPv4Address, proc: Path) -> bool:
    """Read from the kernel's routing table of that process; False when the process is gone."""
    try:
        with (proc / str(process_id) / "net" / "fib_trie").open(encoding="ascii") as lines:
            return address in local_addresses(lines)
    except OSError:
        return False


def local_addresses(fib_trie: Iterable[str]) -> frozenset[IPv4Address]:
    """The addresses of `/proc/<pid>/net/fib_trie` that are the namespace's own: leaves marked `/32 host LOCAL`."""
    addresses = set()
    leaf = ""
    for line in fib_trie:
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            addresses.add(IPv4Address(leaf))
    return frozenset(addresses)
