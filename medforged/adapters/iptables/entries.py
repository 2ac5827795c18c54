"""Owns reading a rule as the kernel keeps it: pure, from bytes to a value that compares.

python-iptables can render a rule back to text only by redirecting the whole process's standard output through a
pipe for a moment, which swallows whatever another thread logs meanwhile. So rules are compared as they are:
`struct ipt_entry` or `ip6t_entry`, then matches, then one target (linux/netfilter_ipv4/ip_tables.h,
linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h; the layout is the same on every 64-bit Linux).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from medforged.adapters.iptables.rules import Family

__all__ = ["Entry", "Part", "decode"]


@dataclass(frozen=True, slots=True)
class Part:
    """A match or a target extension: its name, its revision and its parameters as the kernel keeps them."""

    name: str
    revision: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule: addresses, interfaces and protocol as bytes, its matches in order, and where it leads.

    `target` is a verdict, an extension or the chain jumped to; `parameters` are an extension's.
    """

    header: bytes
    matches: tuple[Part, ...]
    target: str
    parameters: bytes = b""

    @property
    def comment(self) -> str:
        """What `-m comment` says, empty without one."""
        comments = (match.data for match in self.matches if match.name == "comment")
        return next(comments, b"").partition(b"\0")[0].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Layout:
    addresses: int  # length of what is matched on: addresses, interfaces, protocol, flags
    offsets: int  # where target_offset and next_offset stand, two 16-bit numbers
    size: int  # of the whole structure, counters included


_LAYOUTS = {Family.IPV4: _Layout(84, 88, 112), Family.IPV6: _Layout(133, 140, 168)}
# struct xt_entry_match and xt_entry_target: 16-bit size, 29 characters, 8-bit revision.
_PART = struct.Struct("=H29sB")
_EXTENSIONS = ("REJECT",)


def decode(family: Family, blob: bytes, target: str) -> Entry:
    """Read one rule. `target` is its verdict, extension or chain, which libiptc knows and the bytes do not.

    Raises ValueError when the bytes are no rule.
    """
    layout = _LAYOUTS[family]
    if len(blob) < layout.size + _PART.size:
        raise ValueError(f"a rule of {len(blob)} bytes is too short")
    target_offset, end = struct.unpack_from("=HH", blob, layout.offsets)
    if not layout.size <= target_offset <= len(blob) - _PART.size or end > len(blob):
        raise ValueError(f"a rule whose target stands at {target_offset} of {len(blob)} bytes")
    matches = []
    position = layout.size
    while position < target_offset:
        match, length = _part(blob, position)
        matches.append(match)
        position += length
    parameters = _part(blob, target_offset)[0].data if target in _EXTENSIONS else b""
    return Entry(blob[: layout.addresses], tuple(matches), target, parameters)


def _part(blob: bytes, position: int) -> tuple[Part, int]:
    size, name, revision = _PART.unpack_from(blob, position)
    if size < _PART.size or position + size > len(blob):
        raise ValueError(f"a part of {size} bytes at {position} of {len(blob)}")
    # What follows the NUL was never written by the kernel: it is whatever the buffer held before.
    text = name.partition(b"\0")[0].decode("ascii", "replace")
    return Part(text, revision, blob[position + _PART.size : position + size]), size
