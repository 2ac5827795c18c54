"""Owns the packet filter layer: the chains of one installation, in both families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from medforged.adapters.iptables.lock import xtables_lock
from medforged.adapters.iptables.rules import Family, Scope, chain_names, render
from medforged.adapters.iptables.strays import stray_chains
from medforged.adapters.iptables.table import FilterTable
from medforged.domain.isolation import Stray, StrayKind

__all__ = ["Firewall"]


class Firewall:
    """Chains and jumps in the legacy filter tables. Blocking; one thread at a time. Raises IsolationError."""

    def __init__(self, instance: str, lock: Callable[[], AbstractContextManager[None]] = xtables_lock) -> None:
        self._instance = instance
        self._tables: Mapping[Family, FilterTable] = {family: FilterTable(family, lock) for family in Family}

    def ensure(self, scope: Scope) -> tuple[str, ...]:
        """Bring the network's chains into place, one commit per family, and say what had to be repaired."""
        return tuple(
            change for plan in render(self._instance, scope) for change in self._tables[plan.family].ensure(plan)
        )

    def missing(self, scope: Scope) -> tuple[str, ...]:
        """What `ensure` would repair."""
        return tuple(
            reason for plan in render(self._instance, scope) for reason in self._tables[plan.family].missing(plan)
        )

    def remove(self, network: str) -> None:
        """Take the network's chains and the jumps to them away, and nothing else."""
        for table in self._tables.values():
            table.remove(tuple(chain_names(self._instance, network).values()))

    def strays(self, network: str) -> tuple[Stray, ...]:
        """Chains of this installation for another network than this one."""
        return tuple(
            Stray(StrayKind.RULES, chain, f"it is about the network {former}, which this installation does not have")
            for chain, former in self._stray_chains(network).items()
        )

    def remove_stray(self, network: str, name: str) -> None:
        """Take this chain away, if it still is a stray, with the others of its network: the jump that tells of one
        may be all that tells of them too. Absent: no error."""
        former = self._stray_chains(network).get(name)
        if former is not None:
            self.remove(former)

    def _stray_chains(self, network: str) -> Mapping[str, str]:
        return stray_chains(self._instance, [network], [table.chains() for table in self._tables.values()])
