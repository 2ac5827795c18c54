"""Owns which rules keep sessions apart, as data: pure, no packet filter is touched here.

Every chain only ever takes traffic away: what is permitted goes back to the caller (RETURN), so that the host's
own rules and Docker's still decide about it. docs/explanation/isolation.md gives the reasons at length.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

__all__ = [
    "PREFIX",
    "ChainPlan",
    "Family",
    "Rule",
    "Scope",
    "TablePlan",
    "Verdict",
    "chain_names",
    "jump_label",
    "render",
]

# Every chain of every installation starts with this; jumps to such chains may stand before each other's.
PREFIX = "MEDFORGE-"
HOOKS = ("FORWARD", "INPUT", "OUTPUT")
# Cloud providers serve instance metadata, credentials included, from link-local addresses (RFC 3927).
_LINK_LOCAL = IPv4Network("169.254.0.0/16")
_STATES = "ESTABLISHED,RELATED"


class Family(StrEnum):
    """The two legacy packet filters."""

    IPV4 = "iptables"
    IPV6 = "ip6tables"


class Verdict(StrEnum):
    """What a rule does with a packet; a jump names its chain instead."""

    RETURN = "RETURN"
    DROP = "DROP"
    RESET = "tcp-reset"
    REFUSE = "icmp-port-unreachable"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Empty means "any"; `source` and `destination` are CIDR, with a leading "!" for "all but".

    `answers` matches packets of connections that the other side opened: replies and related errors. `known`
    matches packets of connections that exist, whoever opened them. `owner` is the uid of the local socket.
    """

    comment: str
    target: str
    into: str = ""
    out: str = ""
    source: str = ""
    destination: str = ""
    protocol: str = ""
    answers: bool = False
    known: bool = False
    owner: int | None = None

    @property
    def states(self) -> str:
        return _STATES if self.answers or self.known else ""


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """A chain of our own, the built-in chain that jumps to it before anything else, and its rules in order."""

    name: str
    hook: str
    jump: Rule
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """Everything of ours in one family's filter table."""

    family: Family
    chains: tuple[ChainPlan, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """What the rules are made from: one sessions' network and the host's other bridges."""

    network: str
    bridge: str
    subnet: IPv4Network
    proxy: IPv4Address
    other_bridges: tuple[str, ...] = ()


def chain_names(instance: str, network: str) -> dict[str, str]:
    """The chain behind each built-in chain, at most 28 characters as the kernel wants.

    Named after the network, not its bridge, so that a network made anew under another bridge keeps its chains.

    >>> chain_names("medforge", "medforge-public-sessions")["FORWARD"]
    'MEDFORGE-f80f48-FORWARD'
    """
    tag = hashlib.sha256(f"{instance}\n{network}".encode()).hexdigest()[:6]
    return {hook: f"{PREFIX}{tag}-{hook}" for hook in HOOKS}


def jump_label(instance: str, network: str) -> str:
    """The comment of the jumps to a network's chains, which says whose they are; the kernel takes 255 characters."""
    return f"{instance}: {network}"[:255]


def render(instance: str, scope: Scope) -> tuple[TablePlan, TablePlan]:
    """The rules of one sessions' network, IPv4 and IPv6."""
    rules = {
        Family.IPV4: {"FORWARD": _forward(scope), "INPUT": _input(scope.bridge), "OUTPUT": _output(scope)},
        Family.IPV6: _nothing(scope.bridge),
    }
    names = chain_names(instance, scope.network)
    label = jump_label(instance, scope.network)

    def plan(family: Family) -> TablePlan:
        return TablePlan(
            family,
            tuple(ChainPlan(names[hook], hook, Rule(label, names[hook]), rules[family][hook]) for hook in HOOKS),
        )

    return plan(Family.IPV4), plan(Family.IPV6)


def _forward(scope: Scope) -> tuple[Rule, ...]:
    bridge, proxy, drop, back = scope.bridge, f"{scope.proxy}/32", Verdict.DROP, Verdict.RETURN
    return (
        # From port to port of the bridge (br_netfilter shows these packets to iptables).
        Rule("the proxy opens connections to sessions", back, bridge, bridge, source=proxy),
        Rule("sessions answer the proxy", back, bridge, bridge, destination=proxy, answers=True),
        Rule("nothing else passes from port to port", drop, bridge, bridge),
        # From the bridge to elsewhere.
        Rule("nothing leaves under a foreign address", drop, bridge, source=f"!{scope.subnet}"),
        Rule("the proxy answers whoever reached it", back, bridge, source=proxy, answers=True),
        Rule("no cloud metadata", drop, bridge, destination=str(_LINK_LOCAL)),
        *(Rule("no other network of this host", drop, bridge, other) for other in scope.other_bridges),
        # From elsewhere to the bridge.
        Rule("the outside answers sessions", back, out=bridge, answers=True),
        Rule("published ports of the proxy", back, out=bridge, destination=proxy),
        Rule("nobody else opens a connection to a session", drop, out=bridge),
    )


def _input(bridge: str) -> tuple[Rule, ...]:
    return (
        Rule("sessions answer readiness probes of the host", Verdict.RETURN, bridge, answers=True),
        Rule("the host is closed to sessions", Verdict.DROP, bridge),
    )


def _output(scope: Scope) -> tuple[Rule, ...]:
    bridge = scope.bridge
    return (
        # Also what the kernel sends without a socket: ICMP errors, the end of a connection that root closed.
        Rule("connections that exist", Verdict.RETURN, out=bridge, known=True),
        Rule("root opens connections: readiness probes, published ports", Verdict.RETURN, out=bridge, owner=0),
        Rule("published ports of the proxy", Verdict.RETURN, out=bridge, destination=f"{scope.proxy}/32"),
        Rule("no other user of this host reaches a session", Verdict.RESET, out=bridge, protocol="tcp"),
        Rule("no other user of this host reaches a session", Verdict.REFUSE, out=bridge),
    )


def _nothing(bridge: str) -> dict[str, tuple[Rule, ...]]:
    inwards = Rule("sessions speak no IPv6", Verdict.DROP, bridge)
    outwards = Rule("sessions speak no IPv6", Verdict.DROP, out=bridge)
    return {"FORWARD": (inwards, outwards), "INPUT": (inwards,), "OUTPUT": (outwards,)}
