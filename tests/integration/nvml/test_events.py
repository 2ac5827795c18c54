"""GPUs wake whoever waits for them, and nothing that goes wrong with that disturbs anything else."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from medforged.adapters.nvml import NvmlGpuDriver
from medforged.domain.errors import GpuError
from tests.fixtures.nvml.script import NvmlScript, scripted_gpu
from tests.fixtures.nvml.watching import IMPATIENT, PATIENCE, look, nvml_threads, threads_are, until

pytestmark = pytest.mark.integration

POLL = 30.0  # the interval between two looks when nothing wakes the daemon
PROMPT = 1.0  # what is promised from an event to its being seen
QUIET = 0.2  # how long nothing happens in tests that let a wait run out
WAIT = "nvmlEventSetWait_v2(timeoutms>0)"  # of the thread that waits, not of a look


@pytest.fixture
async def driver(library: ctypes.CDLL) -> AsyncIterator[NvmlGpuDriver]:
    """A driver whose events are made anew at once when they fail."""
    driver = NvmlGpuDriver(event_retry_seconds=0)
    yield driver
    await driver.close()
    assert library.medforgeInitialisations() == 0


async def begun(driver: NvmlGpuDriver, library: ctypes.CDLL, seconds: float = POLL) -> asyncio.Task[bool]:
    """A wait whose thread is inside the library."""
    waiting = asyncio.create_task(driver.changed(seconds))

    async def inside() -> bool:
        return bool(library.medforgeWaiting())

    await until(inside)
    return waiting


async def settled(driver: NvmlGpuDriver) -> None:
    """Look, and let the driver tell that events are watched now."""
    await driver.inventory()
    assert await driver.changed(PATIENCE)
    await driver.inventory()


async def faults(driver: NvmlGpuDriver) -> list[bool]:
    return [device.fault is not None for device in (await driver.inventory()).devices]


async def wakes(driver: NvmlGpuDriver, script: NvmlScript, number: int, xid: int = 79) -> bool:
    """Whether an Xid of this GPU is told."""
    script.xid(script.gpus[number].uuid, xid)
    return await driver.changed(PATIENCE)


# What is promised.


async def test_an_xid_is_seen_long_before_the_next_poll(
    library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(driver)
    waiting = await begun(driver, library)

    started = time.monotonic()
    script.xid(script.gpus[1].uuid, 79)
    with capture_logs() as logs:
        assert await waiting
        seen = await faults(driver)
        elapsed = time.monotonic() - started
        await driver.inventory()

    assert seen == [False, True, False]
    assert elapsed < PROMPT
    assert [(log["event"], log["gpu_uuid"], log["xid"]) for log in logs] == [("gpu.xid", script.gpus[1].uuid, 79)]


async def test_a_double_bit_error_wakes(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    script.double_bit_error(script.gpus[2].uuid)

    assert await driver.changed(POLL)
    assert await faults(driver) == [False, False, True]


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
async def test_an_xid_of_a_program_wakes_and_marks_nothing(driver: NvmlGpuDriver, script: NvmlScript, xid: int) -> None:
    await settled(driver)

    assert await wakes(driver, script, 0, xid)
    assert await faults(driver) == [False, False, False]


async def test_nothing_is_told_while_nothing_happens(driver: NvmlGpuDriver) -> None:
    await settled(driver)

    assert not await driver.changed(QUIET)
    assert not await driver.changed(0)


async def test_one_look_does_for_all_that_happened_before_it(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    for gpu in script.gpus:
        script.events += [f"event {len(script.events) + 1} {gpu.uuid} xid 62"]
    script.write()

    assert await driver.changed(POLL)
    assert await faults(driver) == [True, True, True]
    assert not await driver.changed(QUIET)


async def test_what_happens_between_two_waits_is_told_by_the_next(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    script.xid(script.gpus[0].uuid, 79)
    await driver.inventory()

    assert await driver.changed(POLL)


async def test_what_happened_before_events_were_watched_is_found_by_a_look_that_they_ask_for(
    driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await driver.inventory()
    script.xid(script.gpus[0].uuid, 79)

    assert await driver.changed(POLL)
    assert await faults(driver) == [True, False, False]


# A wait that hangs, is cancelled, or is closed under the thread.


async def test_a_wait_that_hangs_disturbs_no_look(
    library: ctypes.CDLL, impatient: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(impatient)
    script.hang(WAIT, 600)
    waiting = await begun(impatient, library, 2 * PROMPT)

    for _ in range(20):
        assert await faults(impatient) == [False, False, False]
    script.xid(script.gpus[1].uuid, 79)
    assert await faults(impatient) == [False, True, False]
    assert not await waiting
    assert not await impatient.changed(QUIET)
    await until(lambda: threads_are("nvml-events"))

    script.heal()
    assert await impatient.changed(PATIENCE)  # the Xid of before
    assert await wakes(impatient, script, 2)


async def test_a_wait_that_hangs_ends_in_time_for_whoever_waits(impatient: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(impatient)
    script.hang(WAIT, 600)

    for _ in range(3):
        started = time.monotonic()
        assert not await impatient.changed(QUIET)
        assert time.monotonic() - started < QUIET + 2 * PROMPT


async def test_a_driver_comes_back_although_a_wait_hangs(library: ctypes.CDLL, script: NvmlScript) -> None:
    driver = NvmlGpuDriver(timeout_seconds=IMPATIENT, attach_timeout_seconds=IMPATIENT, event_retry_seconds=0)
    await settled(driver)
    script.hang(WAIT, 600)
    assert not await driver.changed(QUIET)
    script.reset_driver()

    assert await faults(driver) == [False, False, False]
    script.heal()
    assert await driver.changed(PATIENCE)
    assert await wakes(driver, script, 1)
    assert await faults(driver) == [False, True, False]
    await driver.close()


async def test_a_registration_that_hangs_touches_nothing_of_a_later_initialisation(
    library: ctypes.CDLL, script: NvmlScript
) -> None:
    driver = NvmlGpuDriver(timeout_seconds=IMPATIENT, attach_timeout_seconds=IMPATIENT, event_retry_seconds=0)
    await driver.inventory()
    script.hang("nvmlDeviceRegisterEvents", 600, script.gpus[1].uuid)
    assert not await driver.changed(QUIET)
    script.reset_driver()

    assert len((await driver.inventory()).devices) == 3
    script.heal()
    await settled(driver)
    assert await wakes(driver, script, 1)  # and the library has checked the rest
    await driver.close()


async def test_close_during_a_wait_is_prompt(library: ctypes.CDLL, script: NvmlScript) -> None:
    driver = NvmlGpuDriver()
    await settled(driver)
    waiting = await begun(driver, library)

    started = time.monotonic()
    await driver.close()

    assert time.monotonic() - started < PROMPT
    assert library.medforgeInitialisations() == 0  # and not shut down under the thread, as the library has checked
    await until(threads_are)
    waiting.cancel()


async def test_a_closed_driver_waits_as_one_without_events(
    library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(driver)
    waiting = await begun(driver, library, PROMPT)
    await driver.close()
    script.xid(script.gpus[0].uuid, 79)

    assert not await waiting
    assert not await driver.changed(QUIET)
    assert await threads_are()


async def test_close_does_not_wait_for_a_wait_that_hangs(impatient: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(impatient)
    script.hang(WAIT, 600)
    assert not await impatient.changed(QUIET)

    async with asyncio.timeout(5 * IMPATIENT):
        await impatient.close()


async def test_cancelled_waits_lose_nothing_and_leave_one_thread(
    library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(driver)
    for _ in range(10):
        waiting = await begun(driver, library)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(nvml_threads()) <= 1
    script.xid(script.gpus[1].uuid, 79)  # the thread of the last is still waiting, and gets it
    await until(threads_are)

    assert await driver.changed(0.0)
    assert await faults(driver) == [False, True, False]


async def test_several_may_wait(library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    waiting = [await begun(driver, library, PROMPT) for _ in range(3)]
    script.xid(script.gpus[0].uuid, 79)

    assert any(await asyncio.gather(*waiting))
    assert await faults(driver) == [True, False, False]


# Drivers, GPUs and sets that fail.


async def test_before_the_first_look_it_only_waits(library: ctypes.CDLL, driver: NvmlGpuDriver) -> None:
    assert not await driver.changed(QUIET)
    assert library.medforgeInitialisations() == 0


async def test_events_are_watched_again_after_a_reset_under_a_wait(
    library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(driver)
    waiting = await begun(driver, library)
    script.reset_driver()

    assert await waiting  # a set that fails is a reason to look
    await settled(driver)
    assert await wakes(driver, script, 2)
    assert await faults(driver) == [False, False, True]


async def test_a_look_that_finds_the_driver_reset_does_not_begin_anew_under_a_wait(
    library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(driver)
    waiting = await begun(driver, library)
    script.fail_until_initialised("nvmlDeviceGetUUID", "UNINITIALIZED")

    assert await faults(driver) == [False, False, False]  # and the library has checked that nobody was inside
    assert await waiting
    assert await wakes(driver, script, 0)


async def test_without_a_driver_it_only_waits(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    script.fail("nvmlDeviceGetCount_v2", "DRIVER_NOT_LOADED")
    with pytest.raises(GpuError):
        await driver.inventory()

    assert not await driver.changed(QUIET)
    script.heal()
    await settled(driver)
    assert await wakes(driver, script, 0)


async def test_without_gpus_it_only_waits(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.gpus.clear()
    script.write()
    await driver.inventory()

    assert not await driver.changed(QUIET)


async def test_gpus_without_events_only_wait(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    for gpu in script.gpus:
        gpu.events = False
    script.write()
    await driver.inventory()

    assert not await driver.changed(QUIET)
    assert await faults(driver) == [False, False, False]


async def test_a_gpu_without_events_leaves_the_others_theirs(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.gpus[0].events = False
    script.write()
    await settled(driver)

    assert await wakes(driver, script, 1)
    assert await faults(driver) == [False, True, False]


@pytest.mark.parametrize("code", ["NOT_SUPPORTED", "GPU_IS_LOST", "UNKNOWN"])
@pytest.mark.parametrize("function", ["nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"])
async def test_a_gpu_that_cannot_be_registered_leaves_the_others_theirs(
    library: ctypes.CDLL, script: NvmlScript, function: str, code: str
) -> None:
    driver = NvmlGpuDriver()
    await driver.inventory()
    script.fail(function, code, script.gpus[1].uuid)
    assert await driver.changed(PATIENCE)
    assert not await driver.changed(QUIET)

    for number in (0, 2):
        assert await wakes(driver, script, number)
    await driver.close()


async def test_a_gpu_that_could_not_be_registered_is_tried_again(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.fail("nvmlDeviceRegisterEvents", "UNKNOWN", script.gpus[1].uuid)
    assert await driver.changed(PATIENCE)
    script.heal()
    assert await driver.changed(PATIENCE)
    assert not await driver.changed(QUIET)

    assert await wakes(driver, script, 1)


async def test_a_gpu_that_appears_is_watched_too(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    script.gpus.append(scripted_gpu(3))
    script.write()
    await settled(driver)

    for number in (3, 0):
        assert await wakes(driver, script, number)
    assert await faults(driver) == [True, False, False, True]


async def test_a_gpu_that_falls_off_the_bus_wakes_and_leaves_the_others_watched(
    library: ctypes.CDLL, driver: NvmlGpuDriver, script: NvmlScript
) -> None:
    await settled(driver)
    waiting = await begun(driver, library)

    started = time.monotonic()
    script.fail("*", "GPU_IS_LOST", script.gpus[1].uuid)
    assert await waiting
    assert await faults(driver) == [False, True, False]
    assert time.monotonic() - started < PROMPT

    assert await driver.changed(PATIENCE)  # those that are left are watched
    assert not await driver.changed(QUIET)
    assert await wakes(driver, script, 2)
    assert await faults(driver) == [False, True, True]


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", WAIT])
@pytest.mark.parametrize("code", ["UNKNOWN", "UNINITIALIZED"])
async def test_events_that_fail_for_good_keep_nobody_looking(
    library: ctypes.CDLL, script: NvmlScript, function: str, code: str
) -> None:
    driver = NvmlGpuDriver()
    script.fail(function, code)
    told = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(4 * QUIET):
            while True:
                with suppress(GpuError):
                    await driver.inventory()
                told += await driver.changed(QUIET)

    assert told <= 2  # that events are watched, and that they are not
    script.heal()
    await driver.close()


async def test_a_set_that_failed_is_made_anew(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await settled(driver)
    script.fail(WAIT, "UNKNOWN")
    assert await driver.changed(PATIENCE)
    script.heal()
    await settled(driver)

    assert await wakes(driver, script, 0)


async def test_the_look_after_a_wake_finds_what_an_earlier_look_has_not(
    driver: NvmlGpuDriver, library: ctypes.CDLL, script: NvmlScript
) -> None:
    """Each set gets each event: the thread that waits takes none away from the look."""
    await settled(driver)
    for xid in (62, 74, 79):
        assert await wakes(driver, script, 0, xid)
        assert f"Xid {xid}" in ((await look(driver))[script.gpus[0].uuid].fault or "")


# What an operator says.


async def test_forgotten_faults_are_gone_and_new_ones_count(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    for number in (0, 1):
        script.xid(script.gpus[number].uuid, 79)
    assert await faults(driver) == [True, True, False]

    await driver.forget_faults(script.gpus[0].uuid)
    assert await faults(driver) == [False, True, False]

    script.xid(script.gpus[0].uuid, 62)
    assert "Xid 62" in ((await look(driver))[script.gpus[0].uuid].fault or "")


async def test_what_is_still_wrong_is_not_forgotten(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.gpus[0].recovery = 1
    script.xid(script.gpus[0].uuid, 79)
    await driver.inventory()

    await driver.forget_faults(script.gpus[0].uuid)

    fault = (await look(driver))[script.gpus[0].uuid].fault or ""
    assert "asks for recovery" in fault
    assert "Xid" not in fault


# The scripted library sees what would crash a real one.


async def test_a_shutdown_under_a_wait_would_be_seen(library: ctypes.CDLL, script: NvmlScript) -> None:
    driver = NvmlGpuDriver(event_retry_seconds=0)
    await settled(driver)
    waiting = await begun(driver, library)

    assert library.nvmlShutdown() == 0

    assert library.medforgeMisuses() == 1
    assert await waiting
    await driver.close()
    library.medforgeForgive()
