"""Owns python-iptables: one family's legacy filter table, read as values and changed in one step.

What has to be known of the library (1.2), and why it is used the way it is:

- importing it runs `ldconfig` and `modprobe` and needs libxtables: so it is imported at the first use;
- `append_rule` and every read of a match's parameters point the process's standard output at a pipe for a moment:
  rules go in through `append_entry` and are read as bytes;
- `autocommit` would put half-built chains into the kernel: it is off, and one commit replaces the whole table;
- looking up a jump's chain opens all five tables, which makes the kernel set up nat, mangle, raw and security: the
  chain's name is set on a standard target instead, and libiptc resolves it. Before 1.2 it does so for every target,
  also in tables that are closed, which ends the process: such a version is refused;
- `Rule6` compares one bit of each letter of an interface's name: the mask is set here;
- since iptables 1.8.11 an entry of an extension's list of parameters is longer than the library believes, so it finds
  the first one only (its issue 353): no other one is set by name;
- tables are cached for the process's life with what was read first: every use reads anew and closes;
- nothing in it is safe for two threads: callers use one.
"""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from medforged.adapters.iptables.difference import Desired, Repair, compare
from medforged.adapters.iptables.entries import Entry, decode
from medforged.adapters.iptables.rules import ChainPlan, Family, Rule, TablePlan, Verdict
from medforged.domain.errors import IsolationError

__all__ = ["FilterTable"]

# A writer that ignores the lock can change the table between our read and our commit (EAGAIN).
_ATTEMPTS = 3
_NAME_BYTES = 16  # IFNAMSIZ
_MATCH_HEADER_BYTES = 32  # struct xt_entry_match
_CONNTRACK_REVISIONS = (2, 3)
_CONNTRACK_FLAGS = (146, 148)  # match_flags and invert_flags: the direction, inverted, is the one of replies
_CONNTRACK_DIRECTION = 1 << 12  # XT_CONNTRACK_DIRECTION


class FilterTable:
    """The filter table of one family. Blocking; one thread at a time. `lock` guards changes."""

    def __init__(self, family: Family, lock: Callable[[], AbstractContextManager[None]]) -> None:
        self._family = family
        self._lock = lock
        self._encoded: dict[Rule, tuple[Any, Entry]] = {}

    def ensure(self, plan: TablePlan) -> tuple[str, ...]:
        """Bring the chains into place in one commit and return what had to be repaired. Raises IsolationError."""
        desired = self._desired(plan)
        if not self._differences(desired):
            return ()
        with self._lock():
            repairs = self._repair(plan, desired)
            left = self._differences(desired)
        if left:
            raise IsolationError(f"cannot keep {self._family} rules: the kernel holds others after a commit: {left}")
        return tuple(f"{self._family}: {reason}" for repair in repairs for reason in repair.reasons)

    def missing(self, plan: TablePlan) -> tuple[str, ...]:
        """What `ensure` would repair, without repairing it."""
        return tuple(
            f"{self._family}: {reason}" for one in self._differences(self._desired(plan)) for reason in one.reasons
        )

    def chains(self) -> Mapping[str, tuple[Entry, ...]]:
        """Every chain there is with its rules, whoever made it. Raises IsolationError."""
        with self._opened() as table:
            return {chain.name: self._rules(table, chain.name) for chain in table.chains}

    def remove(self, chains: Sequence[str]) -> None:
        """Take the chains and every jump to them away. Absent: no error. Raises IsolationError."""
        with self._lock(), self._opened() as table:
            there = [chain for chain in chains if table.is_chain(chain)]
            if not there:
                return
            for chain in table.chains:
                self._delete_jumps(table, chain.name, there)
            for name in there:
                table.flush_entries(name)
                table.delete_chain(name)
            table.commit()

    def _repair(self, plan: TablePlan, desired: Sequence[Desired]) -> tuple[Repair, ...]:
        for attempt in range(_ATTEMPTS):
            try:
                with self._opened() as table:
                    repairs = compare(desired, self._read(table, desired))
                    for repair, chain in self._with_plans(repairs, plan):
                        self._apply(table, repair, chain)
                    table.commit()
            except _Changed:
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return repairs
        raise AssertionError("unreachable: the last attempt returns or raises")

    @staticmethod
    def _with_plans(repairs: Sequence[Repair], plan: TablePlan) -> Iterator[tuple[Repair, ChainPlan]]:
        chains = {chain.name: chain for chain in plan.chains}
        return ((repair, chains[repair.chain]) for repair in repairs)

    def _apply(self, table: Any, repair: Repair, chain: ChainPlan) -> None:
        if repair.rebuild:
            if table.is_chain(chain.name):
                table.flush_entries(chain.name)
            else:
                table.create_chain(chain.name)
            for rule in chain.rules:
                table.append_entry(chain.name, self._encode(rule)[0])
        if repair.rejump:
            self._delete_jumps(table, chain.hook, [chain.name])
            table.insert_entry(chain.hook, self._encode(chain.jump)[0], 0)

    def _delete_jumps(self, table: Any, chain: str, targets: Sequence[str]) -> None:
        places = [place for place, entry in enumerate(self._rules(table, chain)) if entry.target in targets]
        for place in reversed(places):
            # The one call of libiptc that Table does not wrap; deleting by content would miss a rule like ours.
            done = table._iptc.iptc_delete_num_entry(chain.encode(), place, table._handle)  # noqa: SLF001
            if done != 1:
                raise IsolationError(f"cannot delete rule {place + 1} of {chain}: {_text(table.strerror())}")

    def _differences(self, desired: Sequence[Desired]) -> tuple[Repair, ...]:
        with self._opened() as table:
            return compare(desired, self._read(table, desired))

    def _read(self, table: Any, desired: Sequence[Desired]) -> Mapping[str, tuple[Entry, ...]]:
        names = {one.name for one in desired} | {one.hook for one in desired}
        return {name: self._rules(table, name) for name in names if table.is_chain(name)}

    def _rules(self, table: Any, chain: str) -> tuple[Entry, ...]:
        rules = []
        entry = table.first_rule(chain)
        while entry:
            blob = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
            rules.append(decode(self._family, blob, _text(table.get_target(entry))))
            entry = table.next_rule(entry)
        return tuple(rules)

    def _desired(self, plan: TablePlan) -> tuple[Desired, ...]:
        wanted = {rule for chain in plan.chains for rule in (chain.jump, *chain.rules)}
        # Only what is in use is kept: the host's bridges come and go.
        self._encoded = {rule: self._encode(rule) for rule in wanted}
        return tuple(
            Desired(
                chain.name,
                chain.hook,
                self._encode(chain.jump)[1],
                tuple(self._encode(rule)[1] for rule in chain.rules),
            )
            for chain in plan.chains
        )

    def _encode(self, rule: Rule) -> tuple[Any, Entry]:
        if rule not in self._encoded:
            buffer, target = _build(_library(), self._family, rule)
            self._encoded[rule] = buffer, decode(self._family, bytes(buffer), target)
        return self._encoded[rule]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        library = _library()
        cls = library.Table if self._family is Family.IPV4 else library.Table6
        try:
            table = cls(cls.FILTER, autocommit=False)
            table.refresh()
        except library.IPTCError as error:
            raise IsolationError(
                f"cannot open the legacy {self._family} filter table: {_text(error)}; run as root on a kernel with "
                "legacy tables (modprobe iptable_filter ip6table_filter; CONFIG_NETFILTER_XTABLES_LEGACY)"
            ) from error
        try:
            yield table
        except library.IPTCError as error:
            if "temporarily unavailable" in str(error):
                raise _Changed(f"cannot change {self._family}: another program changes it all the time") from error
            raise IsolationError(f"cannot change {self._family}: {_text(error)}") from error
        finally:
            table.close()


class _Changed(IsolationError):
    """The table was changed by somebody else between reading and committing it."""


def _build(library: Any, family: Family, rule: Rule) -> tuple[Any, str]:
    """The rule as a buffer that libiptc takes, and its target as libiptc names it."""
    built = library.Rule() if family is Family.IPV4 else library.Rule6()
    try:
        _set_addresses(built, family, rule)
        if rule.states:
            match = _match(built, "conntrack", "ctstate", rule.states)
            if rule.answers:
                _replies_only(match)
        if rule.owner is not None:
            _match(built, "owner", "uid-owner", str(rule.owner))
        _match(built, "comment", "comment", rule.comment)
        target = _set_target(built, rule)
        buffer = built.rule
    except (library.IPTCError, library.XTablesError, ValueError, AttributeError) as error:
        raise IsolationError(
            f"cannot express a rule for {family} ({rule.comment}): {_text(error)}; "
            "the iptables package of this host lacks an extension"
        ) from error
    return buffer, target


def _set_addresses(built: Any, family: Family, rule: Rule) -> None:
    if rule.into:
        built.in_interface = rule.into
    if rule.out:
        built.out_interface = rule.out
    if family is Family.IPV6:
        # The name and the NUL behind it, every bit of them.
        built.entry.ipv6.iniface_mask = _mask(rule.into)
        built.entry.ipv6.outiface_mask = _mask(rule.out)
    if rule.source:
        built.src = rule.source
    if rule.destination:
        built.dst = rule.destination
    if rule.protocol:
        built.protocol = rule.protocol


def _mask(interface: str) -> bytes:
    return b"\xff" * min(len(interface) + 1, _NAME_BYTES) if interface else b""


def _match(built: Any, name: str, parameter: str, value: str) -> Any:
    """`parameter` has to be the extension's first: see the head of this module."""
    match = built.create_match(name)
    match.set_parameter(parameter, value)
    return match


def _replies_only(match: Any) -> None:
    """What `--ctdir REPLY` does: two flags in struct xt_conntrack_mtinfo2 and 3 (linux/netfilter/xt_conntrack.h)."""
    if match.match.u.user.revision not in _CONNTRACK_REVISIONS:
        raise AttributeError(f"this host's conntrack match has revision {match.match.u.user.revision}")
    for place in _CONNTRACK_FLAGS:
        at = _MATCH_HEADER_BYTES + place
        flags = int.from_bytes(bytes(match.match_buf[at : at + 2]), sys.byteorder) | _CONNTRACK_DIRECTION
        match.match_buf[at : at + 2] = flags.to_bytes(2, sys.byteorder)


def _set_target(built: Any, rule: Rule) -> str:
    if rule.target in (Verdict.RESET, Verdict.REFUSE):
        built.create_target("REJECT").set_parameter("reject-with", rule.target)
        return "REJECT"
    built.create_target("RETURN").standard_target = rule.target
    return str(rule.target)


def _text(message: object) -> str:
    if isinstance(message, bytes):
        return message.decode(errors="replace")
    return "" if message is None else str(message)


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            # Its modules hold invalid escape sequences, which Python reports when it compiles them.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", SyntaxWarning)
            import iptc
    except Exception as error:
        raise IsolationError(
            f"cannot load python-iptables: {error}; install the iptables package (libxtables.so.12 and its "
            "extensions) and python-iptables 1.2 or later"
        ) from error
    if not hasattr(iptc.Target, "STANDARD_TARGETS"):
        raise IsolationError("cannot use this version of python-iptables: install 1.2 or later")
    return iptc
