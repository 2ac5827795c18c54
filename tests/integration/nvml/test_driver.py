"""The driver as a whole fails, is reset, comes back."""

from __future__ import annotations

import ctypes

import pytest

from medforged.adapters.nvml import NvmlGpuDriver
from medforged.domain.errors import GpuError
from tests.fixtures.nvml.script import NvmlScript
from tests.fixtures.nvml.watching import threads_are, until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("DRIVER_NOT_LOADED", "the NVIDIA kernel driver is not loaded; load it with `modprobe nvidia`"),
        ("LIB_RM_VERSION_MISMATCH", "different versions; restart medforged"),
        ("NO_PERMISSION", "the driver refuses this process; run medforged as root"),
        ("UNKNOWN", 'NVML reports "Unknown Error" (999); compare with nvidia-smi'),
    ],
)
@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount_v2"])
async def test_a_driver_that_fails_is_tried_anew_at_every_look(
    driver: NvmlGpuDriver, script: NvmlScript, function: str, code: str, said: str
) -> None:
    script.fail(function, code)
    for _ in range(2):
        with pytest.raises(GpuError) as caught:
            await driver.inventory()
        assert said in str(caught.value)
        assert said in driver.describe().reason
    script.heal()

    assert len((await driver.inventory()).devices) == 3
    assert driver.describe().reason == "libnvidia-ml.so.1: driver 570.86.15, 3 GPUs"


async def test_a_reset_driver_is_initialised_anew_within_the_same_look(
    driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    before = await driver.inventory()
    script.reset_driver()

    assert await driver.inventory() == before


async def test_a_device_call_that_finds_the_driver_reset_is_repeated(
    driver: NvmlGpuDriver, library: ctypes.CDLL, script: NvmlScript
) -> None:
    before = await driver.inventory()
    script.fail("nvmlDeviceGetUUID", "UNINITIALIZED", script.gpus[1].uuid)
    with pytest.raises(GpuError, match="loses its initialisation at once"):
        await driver.inventory()
    script.heal()

    assert await driver.inventory() == before
    assert library.medforgeInitialisations() == 1


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetTemperature"])
async def test_a_reset_in_the_middle_of_a_look_is_not_noticed(
    driver: NvmlGpuDriver, script: NvmlScript, function: str
) -> None:
    before = await driver.inventory()
    script.fail_until_initialised(function, "UNINITIALIZED", script.gpus[1].uuid)

    assert await driver.inventory() == before


async def test_xids_are_watched_again_after_a_reset(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.reset_driver()
    await driver.inventory()
    script.xid(script.gpus[0].uuid, 62)

    assert "Xid 62" in ((await driver.inventory()).devices[0].fault or "")


async def test_many_looks_keep_one_initialisation_and_no_threads(
    driver: NvmlGpuDriver, library: ctypes.CDLL, script: NvmlScript
) -> None:
    for _ in range(20):
        await driver.inventory()
    await until(threads_are)

    assert library.medforgeInitialisations() == 1
