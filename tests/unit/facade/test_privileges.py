"""The facade refuses to have power over the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from facade.privileges import check_privileges
from facade.startup import StartupFailed
from medforged.contract.exitcodes import ExitCode

pytestmark = pytest.mark.unit

SOMEONE = 4242


def test_root_is_refused() -> None:
    with pytest.raises(StartupFailed, match="cannot start as root") as caught:
        check_privileges(0, ())
    assert caught.value.exit_code is ExitCode.NO_PERMISSION


def test_a_way_to_docker_is_refused(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch(0o600)
    with pytest.raises(StartupFailed, match="as good as root") as caught:
        check_privileges(SOMEONE, (tmp_path / "none", socket))
    assert caught.value.exit_code is ExitCode.NO_PERMISSION


def test_without_either_it_starts(tmp_path: Path) -> None:
    check_privileges(SOMEONE, (tmp_path / "none",))
    assert not os.path.lexists(tmp_path / "none")
