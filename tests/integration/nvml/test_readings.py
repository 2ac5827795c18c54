"""What is read from a GPU that answers."""

from __future__ import annotations

import pytest

from medforged.adapters.nvml import NvmlGpuDriver
from medforged.domain.gpus import GpuDevice
from tests.fixtures.nvml.script import MIB, NvmlScript
from tests.fixtures.nvml.watching import look

pytestmark = pytest.mark.integration


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


async def test_bytes_that_are_no_text_are_a_fault_of_that_gpu_alone(driver: NvmlGpuDriver, script: NvmlScript) -> None:
    script.gpus[0].name = "NVIDIA \udcff\udcfe"
    script.gpus[1].uuid = "GPU-\udcff"
    script.write()

    inventory = await driver.inventory()

    assert [device.index for device in inventory.devices] == [0, 2]
    assert (inventory.devices[0].fault or "").startswith("cannot read its name: 'utf-8' codec")
    assert inventory.faults[0].startswith("cannot identify the GPU at index 1: cannot read its identity: 'utf-8' codec")


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
