"""Handing directories over: never through a link, and only below what others cannot change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from medforged.adapters.owned_directory import Owner, hand_over, untrusted_part

pytestmark = pytest.mark.unit

OURSELVES = Owner(os.geteuid(), os.getegid())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_sets_the_mode_exactly(tmp_path: Path) -> None:
    directory = tmp_path / "workspace"
    directory.mkdir()
    directory.chmod(0o2755)
    hand_over(directory, OURSELVES, 0o700)
    assert mode(directory) == 0o700


def test_never_follows_a_link(tmp_path: Path) -> None:
    target = tmp_path / "etc"
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    link = tmp_path / "workspace"
    link.symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        hand_over(link, OURSELVES, 0o700)
    assert mode(target) == 0o755


def test_only_directories(tmp_path: Path) -> None:
    file = tmp_path / "workspace"
    file.touch(mode=0o644)
    with pytest.raises(NotADirectoryError):
        hand_over(file, OURSELVES, 0o700)


def test_what_is_in_it_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o644)
    hand_over(tmp_path, OURSELVES, 0o700)
    assert mode(file) == 0o644


def test_trusts_what_only_we_can_change(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert untrusted_part(inner) is None


@pytest.mark.parametrize("bits", [0o775, 0o757])
def test_sees_a_part_that_others_can_write_to(tmp_path: Path, bits: int) -> None:
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    outer.chmod(bits)
    assert untrusted_part(inner) == outer
    outer.chmod(bits | stat.S_ISVTX)
    assert untrusted_part(inner) is None


def test_looks_at_where_links_lead(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    (bad / "inner").mkdir(parents=True)
    bad.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(bad / "inner")
    assert untrusted_part(link) == bad
