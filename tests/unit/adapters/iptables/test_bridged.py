"""Owns that bridged packets are shown to iptables, or an error says why not and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from medforged.adapters.iptables.bridged import ensure_bridge_filtering
from medforged.adapters.process import CommandFailed
from medforged.domain.errors import IsolationError

pytestmark = pytest.mark.unit

NAMES = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")


class Kernel:
    """A kernel whose module can be loaded, or not; `root` stands for /proc/sys/net/bridge."""

    def __init__(self, root: Path, *, loadable: bool = True, works: bool = True) -> None:
        self.root = root
        self.loaded: list[tuple[str, ...]] = []
        self._loadable = loadable
        self._works = works

    def set(self, *values: str) -> None:
        self.root.mkdir(exist_ok=True)
        for name, value in zip(NAMES, values, strict=True):
            (self.root / name).write_text(f"{value}\n")

    def values(self) -> list[str]:
        return [(self.root / name).read_text().strip() for name in NAMES]

    async def run(self, argv: Sequence[str]) -> None:
        self.loaded.append(tuple(argv))
        if not self._loadable:
            raise CommandFailed(argv, 1, "", "", "ended with status 1: Module br_netfilter not found")
        if self._works:
            self.set("1", "1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bridge"


async def test_what_is_right_is_left_alone(root: Path) -> None:
    kernel = Kernel(root)
    kernel.set("1", "1")

    assert await ensure_bridge_filtering(root, kernel.run) == ()
    assert kernel.loaded == []


@pytest.mark.parametrize("values", [("0", "0"), ("1", "0"), ("0", "1")])
async def test_what_is_off_is_switched_on(root: Path, values: tuple[str, str]) -> None:
    kernel = Kernel(root)
    kernel.set(*values)

    changed = await ensure_bridge_filtering(root, kernel.run)

    assert kernel.values() == ["1", "1"]
    assert changed == tuple(f"{name} set to 1" for name, value in zip(NAMES, values, strict=True) if value == "0")
    assert kernel.loaded == []


async def test_a_module_that_is_not_loaded_is_loaded(root: Path) -> None:
    kernel = Kernel(root)

    assert await ensure_bridge_filtering(root, kernel.run) == ("br_netfilter loaded",)
    assert kernel.loaded == [("modprobe", "br_netfilter")]
    assert await ensure_bridge_filtering(root, kernel.run) == ()


async def test_a_kernel_without_the_module(root: Path) -> None:
    with pytest.raises(IsolationError, match=r"Module br_netfilter not found; .*CONFIG_BRIDGE_NETFILTER.*modules-load"):
        await ensure_bridge_filtering(root, Kernel(root, loadable=False).run)


async def test_a_module_that_is_loaded_without_effect(root: Path) -> None:
    with pytest.raises(IsolationError, match=r"is loaded but .* is absent; .*network namespace"):
        await ensure_bridge_filtering(root, Kernel(root, works=False).run)


async def test_a_setting_that_cannot_be_changed(root: Path) -> None:
    kernel = Kernel(root)
    kernel.set("1", "1")
    (root / NAMES[1]).unlink()
    (root / NAMES[1]).mkdir()

    with pytest.raises(IsolationError, match=r"ip6tables: Is a directory; set net.bridge.bridge-nf-call-ip6tables=1"):
        await ensure_bridge_filtering(root, kernel.run)
