"""How single looks become an inventory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from medforged.adapters.nvml.roll import Roll, Silence
from medforged.adapters.nvml.xids import XidBook
from medforged.domain.gpus import GpuDevice

pytestmark = pytest.mark.unit


def gpu(number: int, *, index: int | None = None, fault: str | None = None) -> GpuDevice:
    return GpuDevice(
        uuid=f"GPU-{number}",
        index=number if index is None else index,
        name="card",
        pci_address=f"0000:0{number}:00.0",
        memory_total_bytes=100,
        memory_used_bytes=10,
        process_ids=(7,),
        fault=fault,
    )


@pytest.fixture
def xids() -> XidBook:
    return XidBook()


@pytest.fixture
def roll(xids: XidBook) -> Roll:
    return Roll(xids)


def test_devices_come_in_the_order_of_their_indexes(roll: Roll) -> None:
    inventory = roll.assemble([gpu(2), gpu(0), gpu(1)])

    assert [device.index for device in inventory.devices] == [0, 1, 2]
    assert inventory.faults == ()


def test_a_silent_gpu_that_was_never_seen_is_a_fault_only(roll: Roll) -> None:
    inventory = roll.assemble([gpu(0), Silence(1, "it is lost")])

    assert [device.uuid for device in inventory.devices] == ["GPU-0"]
    assert inventory.faults == ("cannot identify the GPU at index 1: it is lost",)


def test_a_silent_gpu_that_was_seen_keeps_its_identity_and_loses_its_readings(roll: Roll) -> None:
    roll.assemble([gpu(0), gpu(1)])

    inventory = roll.assemble([gpu(0), Silence(1, "it is lost")])

    assert inventory.devices[0] == gpu(0)
    assert inventory.devices[1] == replace(gpu(1), memory_used_bytes=None, process_ids=(), fault="it is lost")
    assert inventory.faults == ()


def test_a_gpu_that_answers_again_is_healthy_again(roll: Roll) -> None:
    roll.assemble([gpu(0)])
    roll.assemble([Silence(0, "it is lost")])

    assert roll.assemble([gpu(0)]).devices == (gpu(0),)


def test_a_gpu_that_tells_only_its_uuid_is_completed_from_memory(roll: Roll) -> None:
    roll.assemble([gpu(0)])

    inventory = roll.assemble([GpuDevice("GPU-0", 0, "", "", 0, fault="it is lost")])

    (device,) = inventory.devices
    assert (device.name, device.pci_address, device.memory_total_bytes) == ("card", "0000:00:00.0", 100)
    assert device.fault == "it is lost"


def test_a_gpu_that_the_driver_does_not_list_any_more_stays_with_a_fault(roll: Roll) -> None:
    roll.assemble([gpu(0), gpu(1)])

    inventory = roll.assemble([gpu(0)])

    assert inventory.devices[0].fault is None
    assert inventory.devices[1].uuid == "GPU-1"
    assert "does not list it any more" in (inventory.devices[1].fault or "")


def test_after_a_new_initialisation_an_index_identifies_nobody(roll: Roll) -> None:
    roll.assemble([gpu(0), gpu(1)])
    roll.forget_places()

    inventory = roll.assemble([gpu(1, index=0), Silence(1, "it is lost")])

    assert inventory.faults == ("cannot identify the GPU at index 1: it is lost",)
    assert {device.uuid: device.fault is None for device in inventory.devices} == {"GPU-0": False, "GPU-1": True}


def test_an_index_that_another_gpu_has_taken_identifies_nobody(roll: Roll) -> None:
    roll.assemble([gpu(0), gpu(1)])

    inventory = roll.assemble([gpu(1, index=0), Silence(1, "it is lost")])

    assert inventory.faults == ("cannot identify the GPU at index 1: it is lost",)


def test_an_xid_stays_and_joins_other_faults(roll: Roll, xids: XidBook) -> None:
    roll.assemble([gpu(0), gpu(1)])
    with capture_logs():
        xids.note("GPU-0", 79)
        xids.note("GPU-1", 13)

    answering = roll.assemble([gpu(0, fault="it is hot"), gpu(1)])
    silent = roll.assemble([Silence(0, "it is lost"), gpu(1)])

    assert (answering.devices[0].fault or "").startswith("it is hot; also the driver reported Xid 79")
    assert (silent.devices[0].fault or "").startswith("it is lost; also the driver reported Xid 79")
    assert answering.devices[1].fault is None
