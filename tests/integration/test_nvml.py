"""The NVML adapter through the real pynvml binding, over the scripted library."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from medforged.adapters.nvml import NvmlGpuDriver, detect
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice
from tests.fixtures.nvml.build import SONAME, build, load
from tests.fixtures.nvml.script import MIB, VARIABLE, NvmlScript

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds until a condition that must come true counts as failed
IMPATIENT = 1.0  # a driver's timeout in tests that let it run out


@pytest.fixture(scope="session")
def directory(pytestconfig: pytest.Config) -> Path:
    return build(Path(pytestconfig.cache.mkdir("nvml")))


@pytest.fixture
def script(tmp_path: Path) -> NvmlScript:
    return NvmlScript(tmp_path / "gpus.txt")


@pytest.fixture
def library(directory: Path, script: NvmlScript, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The scripted library in this process, left without an initialisation or a thread."""
    loaded = load(directory)
    monkeypatch.setenv(VARIABLE, str(script.path))
    yield loaded
    script.heal()
    for thread in nvml_threads():
        thread.join(PATIENCE)
    assert nvml_threads() == []


@pytest.fixture
async def driver(library: ctypes.CDLL) -> AsyncIterator[NvmlGpuDriver]:
    driver = NvmlGpuDriver()
    yield driver
    await driver.close()
    assert library.medforgeInitialisations() == 0


@pytest.fixture
async def impatient(library: ctypes.CDLL, script: NvmlScript) -> AsyncIterator[NvmlGpuDriver]:
    driver = NvmlGpuDriver(timeout_seconds=IMPATIENT, attach_timeout_seconds=IMPATIENT)
    yield driver
    script.heal()
    await driver.close()
    while library.medforgeInitialisations():  # not shut down under a thread that was stuck at its close
        library.nvmlShutdown()


def nvml_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("nvml")]


async def threads_are(*names: str) -> bool:
    return sorted(thread.name for thread in nvml_threads()) == sorted(names)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def look(driver: NvmlGpuDriver) -> dict[str, GpuDevice]:
    return {device.uuid: device for device in (await driver.inventory()).devices}


# ---- readings ----


async def test_readings_are_those_of_the_driver(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    gpu = script.gpus[1]
    gpu.memory = (32607 * MIB, 1024 * MIB, 486 * MIB)
    gpu.utilization, gpu.temperature, gpu.power, gpu.mig, gpu.recovery = 97, 71, 574_321, 0, 0
    gpu.compute, gpu.graphics, gpu.mps = [300, 100], [100, 200], [400]
    script.write()

    device = (await look(driver))[gpu.uuid]

    assert device == GpuDevice(
        uuid=gpu.uuid,
        index=1,
        name="NVIDIA GeForce RTX 5090",
        pci_address="0000:02:00.0",
        memory_total_bytes=32607 * MIB,
        memory_used_bytes=1024 * MIB,
        utilization_percent=97,
        temperature_celsius=71,
        power_milliwatts=574_321,
        process_ids=(100, 200, 300, 400),
    )
    assert driver.describe().reason == "libnvidia-ml.so.1: driver 570.86.15, 3 GPUs"


async def test_what_a_gpu_does_not_offer_is_none_and_no_fault(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    gpu = script.gpus[0]
    gpu.memory = gpu.utilization = gpu.temperature = gpu.power = gpu.mig = gpu.recovery = None
    script.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", "NOT_SUPPORTED", gpu.uuid)
    script.fail("nvmlDeviceGetMPSComputeRunningProcesses_v3", "FUNCTION_NOT_FOUND", gpu.uuid)
    script.fail("nvmlDeviceRegisterEvents", "NOT_SUPPORTED", gpu.uuid)

    for _ in range(2):  # also when it is asked again
        device = (await look(driver))[gpu.uuid]

        assert device.fault is None
        assert device.memory_used_bytes is None
        assert device.memory_total_bytes == 0
        assert device.utilization_percent is device.temperature_celsius is device.power_milliwatts is None


async def test_an_older_driver_tells_memory_in_the_first_form(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.fail("nvmlDeviceGetMemoryInfo_v2", "FUNCTION_NOT_FOUND")

    device = (await driver.inventory()).devices[0]

    assert device.memory_total_bytes == 32607 * MIB
    assert device.memory_used_bytes == (17 + 486) * MIB
    assert device.fault is None


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetPciInfo_v3", "PCI address"),
        ("nvmlDeviceGetMemoryInfo_v2", "memory"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetTemperature", "temperature"),
        ("nvmlDeviceGetPowerUsage", "power usage"),
        ("nvmlDeviceGetMigMode", "MIG mode"),
        ("nvmlDeviceGetFieldValues", "recovery action"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "compute processes"),
        ("nvmlDeviceGetGraphicsRunningProcesses_v3", "graphics processes"),
        ("nvmlDeviceGetMPSComputeRunningProcesses_v3", "MPS processes"),
        ("nvmlDeviceGetSupportedEventTypes", "Xid events"),
        ("nvmlEventSetCreate", "Xid events"),
        ("nvmlDeviceRegisterEvents", "Xid events"),
        ("nvmlEventSetWait_v2", "Xid events"),
    ],
)
async def test_any_failing_reading_is_a_fault_of_that_gpu_alone(
    driver: NvmlGpuDriver, script: NvmlScript, function: str, said: str
) -> None:
    ill = script.gpus[1].uuid
    # Event sets are made for no GPU in particular, so that one fails for all.
    script.fail(function, "UNKNOWN", "" if function == "nvmlEventSetCreate" else ill)

    faults = {uuid: device.fault for uuid, device in (await look(driver)).items()}

    assert f'cannot read its {said}: NVML reports "Unknown Error" (999)' in (faults.pop(ill) or "")
    if function != "nvmlEventSetCreate":
        assert set(faults.values()) == {None}

    script.heal()
    assert all(device.fault is None for device in (await look(driver)).values())


async def test_a_gpu_that_does_not_tell_its_processes_is_faulty(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.fail("nvmlDeviceGetComputeRunningProcesses_v3", "NOT_SUPPORTED", script.gpus[0].uuid)

    device = (await driver.inventory()).devices[0]

    assert "cannot read its compute processes" in (device.fault or "")


async def test_a_gpu_in_mig_mode_is_faulty_and_still_read(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.gpus[2].mig = 1
    script.write()

    device = (await driver.inventory()).devices[2]

    assert "MIG mode is on" in (device.fault or "")
    assert device.temperature_celsius == 34


async def test_a_recommended_recovery_is_a_fault_until_it_is_done(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.gpus[2].recovery = 1
    script.write()
    assert "--gpu-reset" in ((await driver.inventory()).devices[2].fault or "")
    script.gpus[2].recovery = 0
    script.write()

    assert (await driver.inventory()).devices[2].fault is None


# ---- lost GPUs ----


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


# ---- Xid events ----


async def test_a_critical_xid_makes_its_gpu_faulty_for_good(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.xid(script.gpus[1].uuid, 79)

    for _ in range(2):
        faults = [device.fault for device in (await driver.inventory()).devices]
        assert "Xid 79 (the GPU fell off the PCIe bus)" in (faults[1] or "")
        assert faults[0] is faults[2] is None

    script.reset_driver()
    assert "Xid 79" in ((await driver.inventory()).devices[1].fault or "")


async def test_a_tenants_xid_is_told_to_the_journal_and_no_fault(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    uuid = script.gpus[1].uuid
    script.xid(uuid, 13)
    script.xid(uuid, 43)

    with capture_logs() as logs:
        inventory = await driver.inventory()

    assert [device.fault for device in inventory.devices] == [None] * 3
    assert [(log["event"], log["gpu_uuid"], log["xid"]) for log in logs] == [
        ("gpu.xid", uuid, 13),
        ("gpu.xid", uuid, 43),
    ]


async def test_no_xid_hides_another(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    for xid in (13, 48, 45, 62, 31):
        script.xid(script.gpus[0].uuid, xid)

    fault = (await driver.inventory()).devices[0].fault or ""

    assert "Xid 48" in fault
    assert "Xid 62" in fault


async def test_a_double_bit_error_is_a_fault(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.double_bit_error(script.gpus[0].uuid)

    assert "Xid 48" in ((await driver.inventory()).devices[0].fault or "")


async def test_xids_are_seen_again_after_the_event_set_failed(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.fail("nvmlEventSetWait_v2", "UNKNOWN")
    await driver.inventory()
    script.heal()
    await driver.inventory()
    script.xid(script.gpus[0].uuid, 62)

    assert "Xid 62" in ((await driver.inventory()).devices[0].fault or "")


async def test_a_flood_of_xids_is_read_in_pieces(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    await driver.inventory()
    script.events += [f"event {number} {script.gpus[0].uuid} xid 13" for number in range(1, 1010)]
    script.events.append(f"event 1010 {script.gpus[0].uuid} xid 79")
    script.write()

    with capture_logs() as logs:
        first = (await driver.inventory()).devices[0]
        second = (await driver.inventory()).devices[0]

    assert first.fault is None
    assert "Xid 79" in (second.fault or "")
    assert len(logs) == 1010


# ---- the driver as a whole ----


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


# ---- what does not return ----


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


# ---- processes of their own: what is found, and that nothing keeps them ----


def see(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    clean = {key: value for key, value in os.environ.items() if key not in {"LD_LIBRARY_PATH", VARIABLE}}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.nvml.look", *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_a_host_without_the_library_has_no_adapter() -> None:
    probe = f"import ctypes; ctypes.CDLL({SONAME!r})"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0:
        pytest.skip(f"this machine has a {SONAME} of its own")

    assert see({}) == {"reason": "libnvidia-ml.so.1 is not installed", "driver": False, "error": None}


def test_a_library_that_cannot_be_loaded_is_a_failure_and_not_an_absence(tmp_path: Path) -> None:
    (tmp_path / SONAME).write_text("this is no library\n")

    seen = see({"LD_LIBRARY_PATH": str(tmp_path)})

    assert seen["driver"] is True
    assert seen["error"].startswith("cannot read the GPUs: libnvidia-ml.so.1 cannot be loaded; install")
    assert seen["reason"] == seen["error"].replace("cannot read the GPUs", "libnvidia-ml.so.1")


def test_a_host_whose_kernel_driver_is_not_loaded_has_a_failing_adapter(directory: Path) -> None:
    seen = see({"LD_LIBRARY_PATH": str(directory)})

    assert seen["driver"] is True
    assert "the NVIDIA kernel driver is not loaded; load it with `modprobe nvidia`" in seen["reason"]
    assert "the NVIDIA kernel driver is not loaded" in seen["error"]


def test_a_program_finds_the_library_by_its_environment_alone(directory: Path, script: NvmlScript) -> None:
    seen = see({"LD_LIBRARY_PATH": str(directory), VARIABLE: str(script.path)})

    assert seen["reason"] == "libnvidia-ml.so.1: driver 570.86.15, 3 GPUs"
    assert [device["uuid"] for device in seen["devices"]] == [gpu.uuid for gpu in script.gpus]


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetName"])
def test_a_stuck_driver_does_not_keep_a_process_from_ending(directory: Path, script: NvmlScript, function: str) -> None:
    script.hang(function, 600)

    seen = see({"LD_LIBRARY_PATH": str(directory), VARIABLE: str(script.path)}, "0.5")

    assert "has not answered" in (seen["error"] or " ".join(seen["faults"]))


async def test_detection_in_this_process_gives_a_driver_that_works(library: ctypes.CDLL, script: NvmlScript) -> None:
    script.fail("nvmlInitWithFlags", "LIB_RM_VERSION_MISMATCH")
    found = await detect()
    assert found.driver is not None
    assert "different versions" in found.reason
    script.heal()

    assert len((await found.driver.inventory()).devices) == 3
    assert found.driver.describe().reason == "libnvidia-ml.so.1: driver 570.86.15, 3 GPUs"
    await found.driver.close()
    assert library.medforgeInitialisations() == 0
