"""Calls that do not return."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time

import pytest

from medforged.adapters.nvml import NvmlGpuDriver
from medforged.domain.errors import GpuError
from tests.fixtures.nvml.script import NvmlScript
from tests.fixtures.nvml.watching import IMPATIENT, PATIENCE, look, threads_are, until

pytestmark = pytest.mark.integration

SOON = 0.1  # a timeout too short for anything but giving up


async def test_a_hanging_gpu_is_faulty_and_delays_the_others_once(impatient: NvmlGpuDriver, script: NvmlScript) -> None:
    before = await look(impatient)
    ill = script.gpus[1].uuid
    script.hang("nvmlDeviceGetUtilizationRates", 600, ill)

    first = await look(impatient)
    started = time.monotonic()
    for _ in range(10):
        later = await look(impatient)
    elapsed = time.monotonic() - started

    for found in (first, later):
        assert list(found) == list(before)
        assert "has not answered for" in (found[ill].fault or "")
        assert found[ill].name == before[ill].name
        assert [found[gpu.uuid] for gpu in (script.gpus[0], script.gpus[2])] == [
            before[script.gpus[0].uuid],
            before[script.gpus[2].uuid],
        ]
    assert elapsed < 5 * IMPATIENT  # ten looks that waited would take ten timeouts
    await until(lambda: threads_are("nvml-1"))

    script.heal()

    async def healthy() -> bool:
        return (await look(impatient))[ill].fault is None

    await until(healthy)


async def test_the_event_loop_runs_while_a_gpu_hangs(impatient: NvmlGpuDriver, script: NvmlScript) -> None:
    await impatient.inventory()
    script.hang("nvmlDeviceGetName", 600, script.gpus[0].uuid)
    task = asyncio.create_task(impatient.inventory())
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.01)
        ticks += 1

    assert ticks > 10
    assert (await task).devices[0].fault


async def test_a_gpu_that_hangs_from_the_first_look_on_is_told_by_its_index(
    impatient: NvmlGpuDriver, script: NvmlScript
) -> None:
    script.hang("nvmlDeviceGetHandleByIndex_v2", 600, script.gpus[1].uuid)

    inventory = await impatient.inventory()

    assert [device.index for device in inventory.devices] == [0, 2]
    assert inventory.faults[0].startswith("cannot identify the GPU at index 1: it has not answered for")


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
async def test_a_hanging_driver_is_an_error_and_works_again_afterwards(
    impatient: NvmlGpuDriver, script: NvmlScript, function: str
) -> None:
    script.hang(function, 600)
    for _ in range(3):
        with pytest.raises(GpuError, match=r"NVML has not answered for .+; see `dmesg`"):
            await impatient.inventory()
    await until(lambda: threads_are("nvml"))
    script.heal()

    async def answers() -> bool:
        try:
            return len(await look(impatient)) == 3
        except GpuError:
            return False

    await until(answers)


async def test_an_xid_before_the_hang_is_not_lost(impatient: NvmlGpuDriver, script: NvmlScript) -> None:
    await impatient.inventory()
    script.events.append(f"event 1 {script.gpus[0].uuid} xid 62")
    script.hang("nvmlDeviceGetTemperature", 600, script.gpus[0].uuid)

    fault = (await impatient.inventory()).devices[0].fault or ""

    assert "has not answered" in fault
    assert "Xid 62" in fault


async def test_close_does_not_wait_for_a_stuck_gpu(impatient: NvmlGpuDriver, script: NvmlScript) -> None:
    await impatient.inventory()
    script.hang("*", 600, script.gpus[0].uuid)
    await impatient.inventory()

    async with asyncio.timeout(5 * IMPATIENT):
        await impatient.close()


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetName"])
async def test_a_look_with_an_initialisation_may_take_longer(
    library: ctypes.CDLL, script: NvmlScript, function: str
) -> None:
    driver = NvmlGpuDriver(timeout_seconds=SOON, attach_timeout_seconds=PATIENCE)
    script.hang(function, 10 * SOON)
    assert [device.fault for device in (await driver.inventory()).devices] == [None] * 3
    script.fail("nvmlDeviceGetCount_v2", "UNKNOWN")
    with pytest.raises(GpuError, match="cannot read the GPUs"):
        await driver.inventory()
    script.failures.clear()
    script.write()

    assert [device.fault for device in (await driver.inventory()).devices] == [None] * 3
    await driver.close()


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount_v2", "nvmlDeviceGetName"])
async def test_later_looks_do_not_get_the_time_of_the_first(
    library: ctypes.CDLL, script: NvmlScript, function: str
) -> None:
    driver = NvmlGpuDriver(timeout_seconds=IMPATIENT, attach_timeout_seconds=600)
    await driver.inventory()
    script.hang(function, 600)

    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(GpuError):
            assert [device.fault is None for device in (await driver.inventory()).devices] == [False] * 3
    script.heal()
    await until(threads_are)
    await driver.close()


async def test_close_does_not_wait_for_a_gpu_that_is_slow_to_attach(library: ctypes.CDLL, script: NvmlScript) -> None:
    driver = NvmlGpuDriver(timeout_seconds=SOON, attach_timeout_seconds=600)
    script.hang("nvmlDeviceGetName", 600, script.gpus[0].uuid)
    task = asyncio.create_task(driver.inventory())
    await until(lambda: threads_are("nvml-0"))

    async with asyncio.timeout(PATIENCE):
        await driver.close()
    script.heal()
    await task
    assert library.nvmlShutdown() == 0  # not shut down under the thread that was inside
    assert library.medforgeInitialisations() == 0


async def test_close_during_a_look_ends_it(driver: NvmlGpuDriver, library: ctypes.CDLL, script: NvmlScript) -> None:
    await driver.inventory()
    script.hang("nvmlDeviceGetCount_v2", 600)
    task = asyncio.create_task(driver.inventory())
    await until(lambda: threads_are("nvml"))
    closing = asyncio.create_task(driver.close())
    script.heal()

    await closing
    with pytest.raises(GpuError, match="closed"):
        await task
    assert library.medforgeInitialisations() == 0
