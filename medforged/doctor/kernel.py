"""Owns whether traffic between sessions meets the packet filter, and whether the clock can be believed."""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path

from medforged.adapters.iptables.bridged import SETTINGS_ROOT
from medforged.config import Settings
from medforged.contract.doctor import Examination, Kind, failed, fine, skipped, warning

__all__ = ["examine_clock", "examine_kernel"]

_TABLES = {"iptables": Path("/proc/net/ip_tables_names"), "ip6tables": Path("/proc/net/ip6_tables_names")}
_BRIDGED = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# adjtimex(2): the clock is not synchronised.
_STA_UNSYNC = 0x0040


def examine_kernel(settings: Settings) -> list[Examination]:
    """br_netfilter, the packet filter's tables, forwarding."""
    if settings.adapters.isolation == "simulated":
        return [skipped(Kind.HOST, "isolation", "isolation is simulated here")]
    return [_bridged(), *(_table(name, path) for name, path in _TABLES.items()), _forwarding()]


def _bridged() -> Examination:
    off = [name for name in _BRIDGED if _read(SETTINGS_ROOT / name) != "1"]
    if not off:
        return fine(Kind.HOST, "br_netfilter", "traffic between sessions meets the packet filter")
    why = "br_netfilter is not loaded" if not SETTINGS_ROOT.exists() else f"{' and '.join(off)} is not 1"
    remedy = "`modprobe br_netfilter` and name it in /etc/modules-load.d; medforged sets both to 1 while it runs"
    return failed(Kind.HOST, "br_netfilter", f"{why}: sessions could reach each other past the rules", remedy)


def _table(name: str, path: Path) -> Examination:
    if "filter" in _read(path).split():
        return fine(Kind.HOST, name, "the table `filter` is there")
    module = "ip6table_filter" if name == "ip6tables" else "iptable_filter"
    return failed(
        Kind.HOST,
        name,
        "this kernel has no legacy table `filter`, where the daemon's rules live",
        f"`modprobe {module}` and name it in /etc/modules-load.d",
    )


def _forwarding() -> Examination:
    if _read(_FORWARD) == "1":
        return fine(Kind.HOST, "forwarding", "sessions reach the internet")
    remedy = "`sysctl net.ipv4.ip_forward=1`; Docker sets it when it starts, unless --ip-forward=false"
    return failed(Kind.HOST, "forwarding", "net.ipv4.ip_forward is not 1: sessions reach nothing", remedy)


def examine_clock() -> Examination:
    """Logins, limits and snapshots go by the clock."""
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    # struct timex is 208 bytes on 64-bit Linux; `modes` 0 only reads, and `status` is the fifth long.
    buffer = (ctypes.c_long * 26)()
    if library.adjtimex(ctypes.byref(buffer)) < 0:
        return skipped(Kind.HOST, "clock", "the kernel does not tell whether it is synchronised")
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    if status & _STA_UNSYNC:
        remedy = "install chrony or enable systemd-timesyncd; `timedatectl` shows more"
        return warning(Kind.HOST, "clock", "it is not synchronised with a time server", remedy)
    return fine(Kind.HOST, "clock", "synchronised")


def _read(path: Path) -> str:
    """A file of the kernel's; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
