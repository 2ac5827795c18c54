"""Owns the tests of the question how a bind mount may propagate, on texts of the form of proc_pid_mountinfo(5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from medforged.adapters.docker.mounts import Propagation, propagation_of

pytestmark = pytest.mark.unit

ROOT_SHARED = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
ROOT_PRIVATE = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"
TANK_SHARED = "90 22 0:50 / /tank rw,noatime shared:7 - zfs tank rw,xattr"
TANK_SLAVE = "90 22 0:50 / /tank rw,noatime master:7 - zfs tank rw,xattr"
TANK_PRIVATE = "90 22 0:50 / /tank rw,noatime - zfs tank rw,xattr"
TANK_UNBINDABLE = "90 22 0:50 / /tank rw,noatime unbindable - zfs tank rw,xattr"
SPACE_SHARED = r"91 22 0:51 / /my\040tank\134x rw shared:8 master:2 propagate_from:3 - zfs t rw"


@pytest.mark.parametrize(
    ("directory", "mounts", "expected"),
    [
        ("/tank/ws", [ROOT_SHARED, TANK_SHARED], Propagation.SLAVE),
        ("/tank/ws", [ROOT_PRIVATE, TANK_SHARED], Propagation.SLAVE),
        ("/tank", [ROOT_PRIVATE, TANK_SLAVE], Propagation.SLAVE),
        ("/tank/ws", [ROOT_SHARED, TANK_PRIVATE], Propagation.PRIVATE),
        ("/tank/ws", [ROOT_SHARED, TANK_UNBINDABLE], Propagation.PRIVATE),
        ("/tanker/ws", [ROOT_PRIVATE, TANK_SHARED], Propagation.PRIVATE),
        ("/srv/ws", [ROOT_SHARED, TANK_PRIVATE], Propagation.SLAVE),
        ("/srv/ws", [ROOT_PRIVATE], Propagation.PRIVATE),
        ("/my tank\\x/ws", [ROOT_PRIVATE, SPACE_SHARED], Propagation.SLAVE),
        ("/tank/ws", [ROOT_SHARED, TANK_SHARED, TANK_PRIVATE], Propagation.PRIVATE),
        ("/tank/ws", [ROOT_SHARED, TANK_PRIVATE, TANK_SHARED], Propagation.SLAVE),
        ("/tank/ws", [ROOT_SHARED, "93 22 0:52 / /ta\x0bnk rw - tmpfs t rw", TANK_PRIVATE], Propagation.PRIVATE),
    ],
)
def test_propagation_is_that_of_the_nearest_mount(directory: str, mounts: list[str], expected: Propagation) -> None:
    assert propagation_of(Path(directory), "\n".join(mounts) + "\n") is expected
