"""Owns that the lock of the iptables programs is taken, waited for, and given back."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from medforged.adapters.iptables.lock import xtables_lock
from medforged.domain.errors import IsolationError

pytestmark = pytest.mark.unit


def is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_the_file_is_made_and_held_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "xtables.lock"

    with xtables_lock(path):
        assert not is_free(path)

    assert is_free(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "xtables.lock"
    with pytest.raises(RuntimeError), xtables_lock(path):
        raise RuntimeError

    assert is_free(path)


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "xtables.lock"
    path.touch()
    order: list[str] = []

    def wait() -> None:
        with xtables_lock(path, patience_seconds=60):
            order.append("ours")

    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=wait)
        waiting.start()
        order.append("theirs")
    waiting.join()

    assert order == ["theirs", "ours"]


def test_patience_ends(tmp_path: Path) -> None:
    path = tmp_path / "xtables.lock"
    with (
        xtables_lock(path),
        pytest.raises(
            IsolationError, match=r"cannot change iptables: another program has held .*; find it with `fuser"
        ),
        xtables_lock(path, patience_seconds=0),
    ):
        pytest.fail("two hold the lock")


def test_a_lock_that_cannot_be_opened(tmp_path: Path) -> None:
    with (
        pytest.raises(IsolationError, match=r"cannot change iptables: .*No such file or directory; run as root"),
        xtables_lock(tmp_path / "absent" / "xtables.lock"),
    ):
        pytest.fail("there is no lock")
