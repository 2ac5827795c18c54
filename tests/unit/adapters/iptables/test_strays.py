"""Owns whose a chain is: what is left of a network of ours is told, and never what is another installation's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from medforged.adapters.iptables.entries import Entry, Part
from medforged.adapters.iptables.rules import chain_names, jump_label
from medforged.adapters.iptables.strays import stray_chains

pytestmark = pytest.mark.unit

DROP = Entry(b"bridge", (Part("comment", 0, b"sessions speak no IPv6".ljust(256, b"\0")),), "DROP")


def jump(label: str, target: str) -> Entry:
    return Entry(b"any", (Part("comment", 0, label.encode().ljust(256, b"\0")),), target)


def table(*owners: tuple[str, str], jumps: tuple[str, ...] = ("FORWARD", "INPUT", "OUTPUT")) -> dict[str, list[Entry]]:
    """A table with the chains of these instances' networks, and jumps from these built-in chains to them."""
    made: dict[str, list[Entry]] = {hook: [DROP] for hook in ("FORWARD", "INPUT", "OUTPUT")}
    for instance, network in owners:
        for hook, chain in chain_names(instance, network).items():
            made[chain] = [DROP]
            if hook in jumps:
                made[hook].append(jump(jump_label(instance, network), chain))
    return made


def strays(*tables: Mapping[str, list[Entry]]) -> dict[str, str]:
    return dict(stray_chains("ours", ["now"], tables))


def all_of(network: str) -> dict[str, str]:
    return dict.fromkeys(chain_names("ours", network).values(), network)


def test_chains_of_the_network_are_none() -> None:
    assert strays(table(("ours", "now")), table(("ours", "now"))) == {}


def test_chains_of_a_former_network_are() -> None:
    seen = table(("ours", "now"), ("ours", "former"), ("ours", "older"))
    assert strays(seen, table(("ours", "now"))) == all_of("former") | all_of("older")


@pytest.mark.parametrize("instance", ["theirs", "our", "ours2", "ours: former", ""])
def test_chains_of_another_installation_never_are(instance: str) -> None:
    assert strays(table((instance, "now"), (instance, "former"), (instance, ": former"))) == {}


def test_one_jump_tells_of_all_chains_of_its_network() -> None:
    """As after a flush of one table: the others are found by it."""
    lost = table(("ours", "former"), jumps=())

    assert strays(lost, lost) == {}
    assert strays(lost, table(("ours", "former"), jumps=("OUTPUT",))) == all_of("former")
    assert strays(table(("ours", "former"), jumps=("INPUT",)), {}) == all_of("former")


def test_only_what_is_there_is_told() -> None:
    seen = table(("ours", "former"))
    gone = chain_names("ours", "former")["OUTPUT"]
    del seen[gone]
    seen["OUTPUT"] = []

    assert strays(seen) == {chain: name for chain, name in all_of("former").items() if chain != gone}


def test_a_chain_that_nothing_of_ours_leads_to_is_left_alone() -> None:
    seen = table(("ours", "former"), jumps=())
    forward = chain_names("ours", "former")["FORWARD"]
    for label in ("", "ours", "ours: ", "former", "theirs: former", "ours: another"):
        seen["FORWARD"] = [jump(label, forward)]
        assert strays(seen) == {}
    seen["FORWARD"] = [Entry(b"any", (), forward)]
    assert strays(seen) == {}


def test_a_name_too_long_for_a_comment_is_left_alone() -> None:
    assert strays(table(("ours", "x" * 300))) == {}
