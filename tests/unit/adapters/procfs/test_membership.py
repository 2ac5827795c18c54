"""What lists of control groups prove."""

from __future__ import annotations

import pytest

from medforged.adapters.procfs.membership import is_elsewhere

pytestmark = pytest.mark.unit

ID = "d3aa1c5e4a0c99d9cc0c2ef2388e5cd2239dc01b04b9e2121843b3957026799a"
OTHER = "0f" * 32

# Recorded from Docker 20.10.24 (cgroupfs driver) on Debian 12, kernel 6.18, with legacy hierarchies beside the unified
# one and no systemd: a process of a container, its child that has ended and was not waited for, the container's shim,
# and kthreadd.
LEGACY = ("9:name=systemd", "8:pids", "7:blkio", "6:freezer", "5:devices", "4:memory", "3:cpuset", "2:cpuacct", "1:cpu")
IN_CONTAINER = "".join(f"{line}:/docker/{ID}\n" for line in (*LEGACY, "0:"))
ZOMBIE = "".join(f"{line}:/\n" for line in LEGACY) + f"0::/docker/{ID}\n"
SHIM = "".join(
    f"{line}:{'/process_api/379a0abe74de9b807e30e8e774b93a03' if line == '4:memory' else '/'}\n"
    for line in (*LEGACY, "0:")
)
KERNEL_THREAD = "".join(f"{line}:/\n" for line in (*LEGACY, "0:"))

# As systemd with legacy controllers ("hybrid") and a runc that does not use the unified hierarchy has them.
HYBRID_HOST = (
    "12:devices:/system.slice/ssh.service\n1:name=systemd:/system.slice/ssh.service\n0::/system.slice/ssh.service\n"
)
HYBRID_CONTAINER = f"12:devices:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n"
HYBRID_ZOMBIE = "12:devices:/\n1:name=systemd:/\n0::/system.slice/containerd.service\n"


@pytest.mark.parametrize(
    "text",
    [
        IN_CONTAINER,
        HYBRID_CONTAINER,
        f"0::/system.slice/docker-{ID}.scope\n",  # the unified hierarchy alone, systemd driver
        f"0::/docker/{ID}\n",  # the same, cgroupfs driver
        f"0::/system.slice/docker-{ID}.scope/init\n",  # groups that a container has made in its own
        f"0::/system.slice/docker-{ID}.scope/docker/{OTHER}\n",  # a container in a container
        f"0::/sessions.slice/docker-{ID}.scope (deleted)\n",  # ended, and its group removed
        f"1:net_cls:/mullvad-exclusions\n0::/system.slice/docker-{ID}.scope\n",
        f"4:memory,devices:/kubepods/burstable/pod1/{ID}\n0::/\n",
        f"0::/system.slice/docker-{ID.upper()}.scope\n",
    ],
)
def test_a_process_of_the_container_is_not_elsewhere(text: str) -> None:
    assert not is_elsewhere(text, ID)


@pytest.mark.parametrize(
    "text",
    [
        SHIM,
        HYBRID_HOST,
        IN_CONTAINER.replace(ID, OTHER),
        f"0::/system.slice/docker-{OTHER}.scope\n",
        f"0::/docker/{OTHER}\n",
        "0::/system.slice/nvidia-persistenced.service\n",
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        "0::/init.scope\n",
        "1:net_cls:/\n0::/user.slice/user-1000.slice/session-3.scope\n",
        f"0::/system.slice/docker-{ID[:-1]}.scope\n",
        "0::/a:b\n",
    ],
)
def test_a_process_in_another_group_is_elsewhere(text: str) -> None:
    assert is_elsewhere(text, ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        KERNEL_THREAD,
        ZOMBIE,
        ZOMBIE.replace(ID, OTHER),  # a zombie of another container looks like one of this, with an older runc
        HYBRID_ZOMBIE,
        "0::/\n",
        "0::/..\n",  # what a reader in a control group of its own is told of others
        "0::/../docker-0123.scope\n",
        "1:net_cls:/mullvad-exclusions\n",  # no hierarchy of containers at all
        "1:net_cls:/mullvad-exclusions\n0::/\n",
        "0::system.slice\n",
        "system.slice\n",
        "x::/system.slice\n",
        "0:/system.slice\n",
        "0::/system.slice\ngarbage\n",
    ],
)
def test_what_proves_nothing_is_not_elsewhere(text: str) -> None:
    assert not is_elsewhere(text, ID)
