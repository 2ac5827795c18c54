"""Owns which rules are rendered: each about the sessions' bridge alone, in an order in which none hides another."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medforged.adapters.iptables.rules import PREFIX, Family, Rule, Scope, TablePlan, Verdict, chain_names, render

pytestmark = pytest.mark.unit

SCOPE = Scope(
    "medforge-public-sessions", "mf-public", IPv4Network("172.30.0.0/24"), IPv4Address("172.30.0.2"), ("br0", "docker0")
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=60)


def chain(hook: str, family: Family = Family.IPV4, scope: Scope = SCOPE) -> tuple[Rule, ...]:
    plan = next(plan for plan in render("medforge", scope) if plan.family is family)
    return next(one.rules for one in plan.chains if one.hook == hook)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("hook", ["FORWARD", "INPUT", "OUTPUT"])
def test_every_rule_is_about_the_bridge_and_says_why(family: Family, hook: str) -> None:
    rules = chain(hook, family)

    assert rules
    for rule in rules:
        assert SCOPE.bridge in (rule.into, rule.out)
        assert rule.comment
        assert rule.target in set(Verdict)


def test_no_rule_ever_accepts() -> None:
    """What is permitted goes back to the host's own rules."""
    assert "ACCEPT" not in {rule.target for plan in render("medforge", SCOPE) for c in plan.chains for rule in c.rules}


def test_only_the_proxy_passes_from_port_to_port() -> None:
    rules = [rule for rule in chain("FORWARD") if rule.into == rule.out == SCOPE.bridge]

    assert [(rule.target, rule.source, rule.destination, rule.answers) for rule in rules] == [
        (Verdict.RETURN, "172.30.0.2/32", "", False),
        (Verdict.RETURN, "", "172.30.0.2/32", True),
        (Verdict.DROP, "", "", False),
    ]
    assert rules == list(chain("FORWARD")[:3])


def test_other_bridges_are_closed() -> None:
    closed = [rule.out for rule in chain("FORWARD") if rule.comment == "no other network of this host"]
    assert closed == ["br0", "docker0"]


def test_cloud_metadata_is_closed_before_anything_leaves() -> None:
    rules = chain("FORWARD")
    (metadata,) = [rule for rule in rules if rule.destination == "169.254.0.0/16"]
    assert metadata.target is Verdict.DROP
    assert all(rule.source for rule in rules[3 : rules.index(metadata)])


@pytest.mark.parametrize("hook", ["FORWARD", "INPUT", "OUTPUT"])
def test_chains_towards_the_bridge_end_with_a_refusal_of_everything(hook: str) -> None:
    last = chain(hook)[-1]
    narrowing = (last.source, last.destination, last.protocol, last.states, last.owner)
    assert narrowing == ("", "", "", "", None)
    assert last.target in {Verdict.DROP, Verdict.REFUSE}


@pytest.mark.parametrize("hook", ["FORWARD", "INPUT", "OUTPUT"])
def test_ipv6_is_closed_altogether(hook: str) -> None:
    for rule in chain(hook, Family.IPV6):
        assert rule.target is Verdict.DROP
        assert (rule.source, rule.destination, rule.protocol, rule.states, rule.owner) == ("", "", "", "", None)
    ways = {(rule.into, rule.out) for rule in chain(hook, Family.IPV6)}
    inwards, outwards = (SCOPE.bridge, ""), ("", SCOPE.bridge)
    assert ways == {"FORWARD": {inwards, outwards}, "INPUT": {inwards}, "OUTPUT": {outwards}}[hook]


def test_only_root_opens_connections_from_the_host() -> None:
    (owned,) = [rule for rule in chain("OUTPUT") if rule.owner is not None]
    assert (owned.owner, owned.target) == (0, Verdict.RETURN)


@given(NAMES, NAMES)
def test_names_fit_the_kernel_and_tell_installations_apart(instance: str, network: str) -> None:
    names = chain_names(instance, network)

    assert set(names) == {"FORWARD", "INPUT", "OUTPUT"}
    assert all(name.startswith(PREFIX) and len(name) <= 28 for name in names.values())
    assert len(set(names.values())) == 3
    assert not set(names.values()) & set(chain_names(instance + "x", network).values())
    assert not set(names.values()) & set(chain_names(instance, network + "x").values())


@given(NAMES, NAMES)
def test_comments_fit_the_kernel(instance: str, network: str) -> None:
    scope = Scope(network * 9, "mf-public", SCOPE.subnet, SCOPE.proxy)
    for plan in render(instance, scope):
        assert all(len(comment) <= 255 for comment in comments(plan))


def comments(plan: TablePlan) -> list[str]:
    return [rule.comment for one in plan.chains for rule in (one.jump, *one.rules)]
