"""Owns reading rules as the kernel gives them, on recorded ones (recorded_rules.txt says where from)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medforged.adapters.iptables.entries import Entry, Part, decode
from medforged.adapters.iptables.rules import Family

pytestmark = pytest.mark.unit


def recorded() -> list[tuple[Family, str, bytes]]:
    lines = Path(__file__).with_name("recorded_rules.txt").read_text(encoding="ascii").splitlines()
    found = (line.split("\t") for line in lines if not line.startswith("#"))
    return [(Family(family), text, bytes.fromhex(digits)) for family, text, digits in found]


RECORDED = recorded()


def blob_with(word: str, family: Family = Family.IPV4) -> bytes:
    return next(blob for one, text, blob in RECORDED if one is family and word in text)


def test_matches_are_read_in_order() -> None:
    entry = decode(Family.IPV4, blob_with("--ctdir"), "RETURN")

    assert [(match.name, match.revision) for match in entry.matches] == [("conntrack", 3), ("comment", 0)]
    assert entry.matches[1].data == b"sessions answer the proxy".ljust(256, b"\0") + entry.matches[1].data[256:]
    assert (entry.target, entry.parameters) == ("RETURN", b"")


def test_what_stands_behind_a_name_does_not_count() -> None:
    """The kernel writes a name and its NUL; what follows is left over in the buffer, and differs from read to read."""
    blob = blob_with("--uid-owner")
    at = blob.index(b"owner\0") + len(b"owner\0")
    assert blob[at : at + 4] != b"\0\0\0\0"
    other = blob[:at] + b"\x5a\x5a\x5a\x5a" + blob[at + 4 :]

    assert decode(Family.IPV4, other, "RETURN") == decode(Family.IPV4, blob, "RETURN")


def test_counters_and_the_place_in_the_table_do_not_count() -> None:
    blob = blob_with("--uid-owner")
    changed = blob[:84] + b"\x01" * 4 + blob[88:92] + b"\x01" * 20 + blob[112:]

    assert decode(Family.IPV4, changed, "RETURN") == decode(Family.IPV4, blob, "RETURN")


@pytest.mark.parametrize(
    ("word", "target"), [("--ctdir", "RETURN"), ("--uid-owner", "RETURN"), ("tcp-reset", "REJECT")]
)
@given(data=st.data())
def test_every_other_bit_counts(word: str, target: str, data: st.DataObject) -> None:
    """A rule that was narrowed by as little as a bit of a mask is another rule."""
    blob = blob_with(word)
    parameters = data.draw(st.sampled_from(_parameters(blob)))
    place = data.draw(st.one_of(st.integers(0, 83), st.sampled_from(parameters)))
    changed = bytearray(blob)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))

    assert decode(Family.IPV4, bytes(changed), target) != decode(Family.IPV4, blob, target)


def _parameters(blob: bytes) -> list[range]:
    """Where the parameters of each match stand: behind its size, its name and its revision, 32 bytes in all."""
    places, position = [], 112
    while position < int.from_bytes(blob[88:90], "little"):
        size = int.from_bytes(blob[position : position + 2], "little")
        places.append(range(position + 32, position + size))
        position += size
    return places


def test_the_whole_name_of_an_interface_counts() -> None:
    """Every letter and the NUL behind them, in IPv6 rules too: python-iptables compares one bit of each by itself."""
    for family, (name, mask) in {Family.IPV4: (16, 48), Family.IPV6: (64, 96)}.items():
        header = decode(family, blob_with("-i mf-recorded", family), "DROP").header
        assert header[name : name + 16] == b"mf-recorded".ljust(16, b"\0")
        assert header[mask : mask + 16] == (b"\xff" * 12).ljust(16, b"\0")


def test_where_a_rule_leads_counts() -> None:
    blob = blob_with("-j CHAIN")
    assert decode(Family.IPV4, blob, "CHAIN") != decode(Family.IPV4, blob, "OTHER")


def test_a_comment_is_read_up_to_its_end() -> None:
    assert decode(Family.IPV4, blob_with("-j CHAIN"), "CHAIN").comment == "recorded: recorded"
    assert decode(Family.IPV4, blob_with("--ctdir"), "RETURN").comment == "sessions answer the proxy"
    assert Entry(b"", (Part("owner", 1, b"recorded"),), "RETURN").comment == ""


def test_parameters_of_a_target_count() -> None:
    blob = blob_with("tcp-reset")
    entry = decode(Family.IPV4, blob, "REJECT")

    assert entry.parameters == (7).to_bytes(8, "little")  # IPT_TCP_RESET, linux/netfilter_ipv4/ipt_REJECT.h
    changed = blob[:-8] + (3).to_bytes(8, "little")
    assert decode(Family.IPV4, changed, "REJECT") != entry


@given(st.binary(max_size=600))
def test_nonsense_is_an_error(data: bytes) -> None:
    for family in Family:
        try:
            decode(family, data, "DROP")
        except ValueError:
            continue


@pytest.mark.parametrize("blob", [b"", bytes(112), bytes(200), b"\xff" * 600])
def test_what_is_no_rule_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        decode(Family.IPV4, blob, "DROP")


def test_a_match_that_leaves_the_rule_is_refused() -> None:
    blob = bytearray(blob_with("--uid-owner"))
    for size in (0, 3, 60000):
        blob[112:114] = size.to_bytes(2, "little")
        with pytest.raises(ValueError, match=f"a part of {size} bytes"):
            decode(Family.IPV4, bytes(blob), "RETURN")
