"""Owns what has to be repaired: pure comparison of the chains as they should be with those that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medforged.adapters.iptables.entries import Entry
from medforged.adapters.iptables.rules import PREFIX

__all__ = ["Desired", "Repair", "compare"]


@dataclass(frozen=True, slots=True)
class Desired:
    """One chain of ours as the kernel should show it."""

    name: str
    hook: str
    jump: Entry
    rules: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Repair:
    """What one chain needs: its rules written anew, its jump put first. `reasons` say what was wrong."""

    chain: str
    hook: str
    rebuild: bool
    rejump: bool
    reasons: tuple[str, ...]


def compare(desired: Sequence[Desired], actual: Mapping[str, Sequence[Entry]]) -> tuple[Repair, ...]:
    """Compare with the chains that exist (name to rules); one Repair for each chain that needs any."""
    found = (_repair(one, actual) for one in desired)
    return tuple(repair for repair in found if repair.reasons)


def _repair(desired: Desired, actual: Mapping[str, Sequence[Entry]]) -> Repair:
    content = _content_problem(desired, actual)
    jump = _jump_problem(desired, actual.get(desired.hook, ()))
    reasons = tuple(reason for reason in (content, jump) if reason is not None)
    return Repair(desired.name, desired.hook, content is not None, jump is not None, reasons)


def _content_problem(desired: Desired, actual: Mapping[str, Sequence[Entry]]) -> str | None:
    rules = actual.get(desired.name)
    if rules is None:
        return f"chain {desired.name} made"
    if tuple(rules) != desired.rules:
        return f"rules of chain {desired.name} restored"
    return None


def _jump_problem(desired: Desired, hook: Sequence[Entry]) -> str | None:
    places = [place for place, entry in enumerate(hook) if entry.target == desired.name]
    if not places:
        return f"jump from {desired.hook} to {desired.name} set"
    # Chains of other networks and installations speak of other bridges: their order among us does not matter.
    ahead = hook[: places[0]]
    if len(places) > 1 or hook[places[0]] != desired.jump or not all(e.target.startswith(PREFIX) for e in ahead):
        return f"jump from {desired.hook} to {desired.name} put first"
    return None
