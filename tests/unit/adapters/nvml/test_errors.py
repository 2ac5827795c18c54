"""NVML's error codes as operators read them."""

from __future__ import annotations

import pynvml
import pytest

from medforged.adapters.nvml.errors import NOT_OFFERED, explain_device, explain_driver, is_uninitialized

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "cannot be loaded", "install the NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded", "modprobe nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "different versions", "restart medforged"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "refuses", "as root"),
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, "operating system refuses", "/dev/nvidia"),
        (pynvml.NVML_ERROR_UNKNOWN, '"Unknown Error" (999)', "nvidia-smi"),
    ],
)
def test_a_driver_error_tells_reason_and_remedy(code: int, reason: str, remedy: str) -> None:
    said, _, advice = explain_driver(pynvml.NVMLError(code)).partition("; ")

    assert reason in said
    assert remedy in advice


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, "the GPU is lost", "reboot"),
        (pynvml.NVML_ERROR_RESET_REQUIRED, "must be reset", "--gpu-reset"),
        (pynvml.NVML_ERROR_CORRUPTED_INFOROM, "infoROM", "replace"),
        (pynvml.NVML_ERROR_IRQ_ISSUE, "interrupts", "slot"),
        (pynvml.NVML_ERROR_INSUFFICIENT_POWER, "power", "cables"),
        (pynvml.NVML_ERROR_UNKNOWN, 'cannot read its temperature: NVML reports "Unknown Error" (999)', "dmesg"),
    ],
)
def test_a_device_error_tells_reason_and_remedy(code: int, reason: str, remedy: str) -> None:
    said, _, advice = explain_device(pynvml.NVMLError(code), "temperature").partition("; ")

    assert reason in said
    assert remedy in advice


def test_a_code_of_a_future_driver_is_named_by_its_number() -> None:
    assert "(4711)" in explain_driver(pynvml.NVMLError(4711))


def test_what_a_device_does_not_offer_is_not_what_it_fails_at() -> None:
    assert pynvml.NVML_ERROR_NOT_SUPPORTED in NOT_OFFERED
    assert pynvml.NVML_ERROR_GPU_IS_LOST not in NOT_OFFERED
    assert pynvml.NVML_ERROR_UNKNOWN not in NOT_OFFERED
    assert pynvml.NVML_ERROR_UNINITIALIZED not in NOT_OFFERED


def test_uninitialized_is_told_from_other_errors() -> None:
    assert is_uninitialized(pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED))
    assert not is_uninitialized(pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN))
