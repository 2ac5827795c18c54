"""GPUs that fall silent keep their names."""

from __future__ import annotations

import pytest

from medforged.adapters.nvml import NvmlGpuDriver
from tests.fixtures.nvml.script import NvmlScript
from tests.fixtures.nvml.watching import look

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "*"])
async def test_a_lost_gpu_keeps_its_name(driver: NvmlGpuDriver, script: NvmlScript, function: str) -> None:
    before = await look(driver)
    lost = script.gpus[1].uuid
    script.fail(function, "GPU_IS_LOST", lost)

    inventory = await driver.inventory()

    assert inventory.faults == ()
    assert [device.uuid for device in inventory.devices] == list(before)
    device = inventory.devices[1]
    assert (device.fault or "").startswith("the GPU is lost")
    assert (device.name, device.pci_address) == (before[lost].name, before[lost].pci_address)
    assert device.memory_used_bytes is None


async def test_a_gpu_that_was_lost_before_the_first_look_is_told_by_its_index(
    driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    script.fail("nvmlDeviceGetHandleByIndex_v2", "GPU_IS_LOST", script.gpus[1].uuid)

    inventory = await driver.inventory()

    assert [device.index for device in inventory.devices] == [0, 2]
    (fault,) = inventory.faults
    assert fault.startswith("cannot identify the GPU at index 1: the GPU is lost")


async def test_a_gpu_that_left_the_bus_stays_known_when_the_indexes_move_up(
    driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await driver.inventory()
    gone = script.gpus.pop(0)
    script.reset_driver()

    found = await look(driver)

    assert "does not list it any more" in (found[gone.uuid].fault or "")
    assert [found[gpu.uuid].fault for gpu in script.gpus] == [None, None]
    assert [found[gpu.uuid].index for gpu in script.gpus] == [0, 1]


async def test_a_host_whose_gpus_are_all_gone_still_tells_which(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    known = [gpu.uuid for gpu in script.gpus]
    await driver.inventory()
    script.gpus.clear()
    script.reset_driver()

    assert {uuid for uuid, device in (await look(driver)).items() if device.fault} == set(known)


async def test_a_silent_gpu_is_not_taken_for_the_one_that_had_its_index_before_a_reset(
    driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await driver.inventory()
    gone = script.gpus.pop(0)
    script.generation += 1
    script.fail("nvmlDeviceGetUUID", "GPU_IS_LOST", script.gpus[0].uuid)

    inventory = await driver.inventory()

    (fault,) = inventory.faults
    assert fault.startswith("cannot identify the GPU at index 0: the GPU is lost")
    faults = {device.uuid: device.fault or "" for device in inventory.devices}
    assert "does not list it" in faults[gone.uuid]
    assert "does not list it" in faults[script.gpus[0].uuid]
    assert faults[script.gpus[1].uuid] == ""
