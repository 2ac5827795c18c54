"""Xid events become faults, or journal entries."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from medforged.adapters.nvml import NvmlGpuDriver
from tests.fixtures.nvml.script import NvmlScript

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2"])
async def test_xids_are_seen_again_after_the_event_set_failed(
    driver: NvmlGpuDriver, script: NvmlScript, function: str
) -> None:
    script.fail(function, "UNKNOWN")
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
