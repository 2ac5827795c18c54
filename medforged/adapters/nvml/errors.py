"""Owns what NVML's error codes mean to an operator: which are no errors, what went wrong, what to do."""

from __future__ import annotations

import pynvml

__all__ = ["NOT_OFFERED", "explain_device", "explain_driver", "is_uninitialized"]

# A device, a driver of this version or a caller with these rights has no such reading. That is no fault.
NOT_OFFERED: frozenset[int] = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
        pynvml.NVML_ERROR_NOT_READY,
    }
)

_DRIVER: dict[int, str] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 cannot be loaded; install the NVIDIA driver with its libraries"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA kernel driver is not loaded; load it with `modprobe nvidia`, "
        "and see `dmesg` and `dkms status` if that fails"
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "libnvidia-ml.so.1 and the loaded kernel driver are of different versions; restart medforged, "
        "which may still hold the library of before an upgrade, and reboot if nvidia-smi says the same"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "the driver refuses this process; run medforged as root with access to /dev/nvidiactl"
    ),
    pynvml.NVML_ERROR_OPERATING_SYSTEM: (
        "the operating system refuses access to the driver; check the rights on /dev/nvidia* and "
        "the device rules of medforged's control group"
    ),
}

_DEVICE: dict[int, str] = {
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "the GPU is lost, it fell off the PCIe bus or became inaccessible; "
        "reboot the host, and check its power and seating if it happens again"
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: (
        "the GPU must be reset before it can be used; stop medforged, run `nvidia-smi --gpu-reset`, start medforged"
    ),
    pynvml.NVML_ERROR_CORRUPTED_INFOROM: "the GPU's infoROM is corrupted; update its firmware or replace it",
    pynvml.NVML_ERROR_IRQ_ISSUE: "the GPU's interrupts do not arrive; check its slot and `dmesg`, and reboot the host",
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: ("the GPU's external power is missing or too weak; check its power cables"),
}


def is_uninitialized(error: pynvml.NVMLError) -> bool:
    """Whether NVML has forgotten its initialisation, as after the driver was reset."""
    return bool(error.value == pynvml.NVML_ERROR_UNINITIALIZED)


def explain_driver(error: pynvml.NVMLError) -> str:
    """Why the driver as a whole does not answer, and the remedy."""
    known = _DRIVER.get(error.value)
    return known or f"NVML reports {_quote(error)}; compare with nvidia-smi, and see `dmesg` for NVRM messages"


def explain_device(error: pynvml.NVMLError, what: str) -> str:
    """Why `what` cannot be read from one GPU, and the remedy."""
    known = _DEVICE.get(error.value)
    return known or f"cannot read its {what}: NVML reports {_quote(error)}; see `dmesg` for NVRM messages"


def _quote(error: pynvml.NVMLError) -> str:
    return f'"{str(error).rstrip(".")}" ({error.value})'
