"""Owns that packets between ports of one bridge are shown to iptables at all (`br_netfilter`).

Without it same-bridge traffic passes below the packet filter. On most kernels it is a module that Docker may or
may not have loaded, and a host may have switched it off for the sake of its virtual machines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from medforged.adapters import process
from medforged.domain.errors import IsolationError

__all__ = ["SETTINGS_ROOT", "ensure_bridge_filtering"]

SETTINGS_ROOT = Path("/proc/sys/net/bridge")
_SETTINGS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
_MODPROBE = ("modprobe", "br_netfilter")
_MODPROBE_SECONDS = 10.0

RunProgram = Callable[[Sequence[str]], Awaitable[object]]


async def _modprobe(argv: Sequence[str]) -> object:
    return await process.run(argv, timeout_seconds=_MODPROBE_SECONDS)


async def ensure_bridge_filtering(root: Path = SETTINGS_ROOT, run: RunProgram = _modprobe) -> tuple[str, ...]:
    """Load the module and switch both settings on where they are not; say what was changed. Raises IsolationError.

    The files are the kernel's own and answer from memory, so reading them does not hold up the event loop.
    """
    changed = []
    if _absent(root):
        await _load(run)
        if _absent(root):
            raise IsolationError(
                f"cannot show bridged packets to iptables: br_netfilter is loaded but {root} is absent; "
                "the daemon must run in the host's network namespace"
            )
        changed.append("br_netfilter loaded")
    changed += [f"{name} set to 1" for name in _SETTINGS if _switched_on(root / name)]
    return tuple(changed)


async def _load(run: RunProgram) -> None:
    try:
        await run(_MODPROBE)
    except process.CommandFailed as error:
        raise IsolationError(
            f"cannot show bridged packets to iptables: {error}; this kernel needs br_netfilter "
            "(CONFIG_BRIDGE_NETFILTER): install the module and name it in /etc/modules-load.d/medforge.conf"
        ) from error


def _absent(root: Path) -> bool:
    return not all((root / name).exists() for name in _SETTINGS)


def _switched_on(setting: Path) -> bool:
    """Whether the setting had to be changed; 1 is what it must be."""
    try:
        if setting.read_text().strip() == "1":
            return False
        setting.write_text("1\n")
    except OSError as error:
        raise IsolationError(
            f"cannot show bridged packets to iptables: {setting}: {error.strerror}; "
            f"set net.bridge.{setting.name}=1 in /etc/sysctl.d/ and run as root"
        ) from error
    return True
