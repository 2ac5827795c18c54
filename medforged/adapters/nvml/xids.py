"""Owns the driver's Xid errors: which of them mean that a GPU is broken, how that is said, and their memory.

Numbers and meanings: NVIDIA's "Xid Errors" and its Xid catalog (docs.nvidia.com/deploy/xid-errors).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import structlog

__all__ = ["XID_DOUBLE_BIT_ECC", "XidBook", "explain_recovery", "explain_xids", "is_fault"]

XID_DOUBLE_BIT_ECC = 48

# Errors that a tenant's program can cause by itself, or that the hardware has contained: the catalog's
# advice is to restart the program or to do nothing. Were they faults, any tenant could take GPUs out of
# service. The first six are also what NVIDIA's own Kubernetes device plugin passes over. Every other
# number, also one that is not known here, is a fault.
_HARMLESS: frozenset[int] = frozenset(
    {
        13,  # graphics engine exception
        31,  # page fault of a program
        43,  # channel stopped after a program's error
        45,  # clean-up after an earlier error
        68,  # video processor exception
        109,  # context switch timeout
        8,  # channel idle timeout
        11,  # invalid push buffer of a program
        41,  # copy engine exception
        63,  # a memory row was remapped: recorded, effective at the next reset
        92,  # many corrected single-bit errors
        94,  # contained memory error: only the program that met it ended
        154,  # the recommended recovery action changed: read as a reading of its own
    }
)

_NAMES: dict[int, str] = {
    XID_DOUBLE_BIT_ECC: "uncorrectable memory error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    64: "memory row remapping failed",
    74: "NVLink error",
    79: "the GPU fell off the PCIe bus",
    95: "uncontained memory error",
    119: "the GPU's system processor does not answer",
    120: "error in the GPU's system processor",
    140: "unrecovered memory error",
}

# nvmlDeviceGpuRecoveryAction_t; 0 means that nothing needs to be done.
_RECOVERY: dict[int, str] = {
    1: "reset it: stop medforged, run `nvidia-smi --gpu-reset`, start medforged",
    2: "reboot the host",
    3: "stop every program that uses peer-to-peer transfers, then look at nvidia-smi again",
    4: "stop every program that uses peer-to-peer transfers, then reset it with `nvidia-smi --gpu-reset`",
}


class XidBook:
    """Remembers which GPU reported which Xids, and writes each to the journal. Safe to use from any thread.

    Faults are kept until an operator has them forgotten or the daemon restarts, since the driver reports each only
    once. To reset a GPU every client of NVML has to be stopped, the daemon too; what was repaired otherwise, or needed
    no repair, is usable again without a restart.
    """

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger("medforged")
        self._lock = threading.Lock()
        self._seen: dict[str, set[int]] = {}

    def note(self, uuid: str, xid: int) -> None:
        """A GPU reported an Xid just now."""
        with self._lock:
            self._seen.setdefault(uuid, set()).add(xid)
        self._log.warning("gpu.xid", gpu_uuid=uuid, xid=xid, fault=is_fault(xid))

    def forget(self, uuid: str) -> None:
        """What this GPU has reported until now does not count any more."""
        with self._lock:
            xids = sorted(self._seen.pop(uuid, ()))
        if xids:
            self._log.info("gpu.faults.forgotten", gpu_uuid=uuid, xids=xids)

    def fault_of(self, uuid: str) -> str | None:
        """One sentence for what this GPU has reported, None when it may be used."""
        with self._lock:
            return explain_xids(self._seen.get(uuid, ()))


def is_fault(xid: int) -> bool:
    """Whether a GPU that reported this Xid must not be given to anyone."""
    return xid not in _HARMLESS


def explain_xids(xids: Iterable[int]) -> str | None:
    """One sentence for the faults among these Xids, None when there are none."""
    faults = sorted({xid for xid in xids if is_fault(xid)})
    if not faults:
        return None
    named = " and ".join(f"Xid {xid} ({_NAMES[xid]})" if xid in _NAMES else f"Xid {xid}" for xid in faults)
    return (
        f"the driver reported {named}; reset the GPU (stop medforged, run `nvidia-smi --gpu-reset`, start medforged) "
        "or replace it, then run `medforgectl gpus recheck`"
    )


def explain_recovery(action: int) -> str | None:
    """One sentence for the recovery action that the driver recommends, None when there is none."""
    if action == 0:
        return None
    return f"the driver asks for recovery of the GPU; {_RECOVERY.get(action, f'see nvidia-smi -q (action {action})')}"
