"""The kernel's mount table, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from medforged.adapters.zfs.mounts import find_mount

pytestmark = pytest.mark.unit

# Lines 1 and 2 from zfs-fuse 0.7 on Linux 6.18; 3 with optional fields as a systemd host has them; 4 and 5 cover 3.
TABLE = r"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
45 44 0:41 / /tank/medforge/u/s rw,nosuid,nodev,relatime - fuse.zfs tank/medforge/u/s rw,user_id=0,group_id=0
46 27 0:42 / /srv/a rw,noatime shared:7 master:3 - zfs tank/first rw,xattr,noacl
47 46 0:43 / /srv/a ro,nosuid,noexec shared:8 - zfs tank/second rw,xattr
48 27 0:44 / /srv/with\040space\011and\134040 rw shared:9 - zfs tank/odd\040name rw
"""


def test_finds_what_is_mounted_there() -> None:
    mount = find_mount(Path("/tank/medforge/u/s"), TABLE)
    assert mount is not None
    assert mount.source == "tank/medforge/u/s"
    assert mount.harmless


@pytest.mark.parametrize("path", ["/tank/medforge/u", "/tank/medforge/u/s/t", "/tank/medforge/u/", "/srv", "/dev/vda"])
def test_only_exactly_there(path: str) -> None:
    mount = find_mount(Path(path), TABLE)
    assert mount is None or mount.path == Path(path)
    assert mount is None


def test_the_last_mount_is_the_one_that_is_seen() -> None:
    mount = find_mount(Path("/srv/a"), TABLE)
    assert mount is not None
    assert mount.source == "tank/second"
    assert mount.options == {"ro", "nosuid", "noexec"}
    assert not mount.harmless


def test_escaped_letters() -> None:
    mount = find_mount(Path("/srv/with space\tand\\040"), TABLE)
    assert mount is not None
    assert mount.source == "tank/odd name"
