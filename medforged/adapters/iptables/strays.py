"""Owns which chains are left of a network that this installation no longer has: pure.

A chain's own name tells nobody whose it is, but the comment of a jump to it does: `instance: network`. It counts only
where the chain is called as that network's would be, so that no installation can be taken for another. One jump, in
either family, tells of all chains of its network. A chain to which nothing leads any more takes no packet, and
it may be that of another installation, so it is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from medforged.adapters.iptables.entries import Entry
from medforged.adapters.iptables.rules import PREFIX, chain_names, jump_label

__all__ = ["stray_chains"]


def stray_chains(
    instance: str, networks: Collection[str], tables: Sequence[Mapping[str, Sequence[Entry]]]
) -> Mapping[str, str]:
    """Chains of this instance that are in any table and of none of `networks`, each with the network it was for."""
    there = {name for table in tables for name in table}
    entries = (entry for table in tables for rules in table.values() for entry in rules)
    jumps = {entry for entry in entries if entry.target.startswith(PREFIX)}
    former = {network for entry in jumps if (network := _network(instance, entry)) is not None}
    return {
        chain: network
        for network in sorted(former - set(networks))
        for chain in chain_names(instance, network).values()
        if chain in there
    }


def _network(instance: str, jump: Entry) -> str | None:
    """The network of this instance whose chain the jump leads to."""
    network = jump.comment.removeprefix(jump_label(instance, ""))
    known = jump.comment == jump_label(instance, network) and jump.target in chain_names(instance, network).values()
    return network if known else None
