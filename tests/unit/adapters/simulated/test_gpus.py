"""What a test or a demonstration does to simulated GPUs, and how that is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.domain.containers import NetworkSpec
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice
from tests.fakes.containers import container_spec

pytestmark = pytest.mark.integration

SUBNET = IPv4Network("10.20.0.0/16")
NETWORK = NetworkSpec("fake-sessions", SUBNET, SUBNET[1], IPv4Network("10.20.128.0/17"), "fake0")
MakeHost = Callable[[], SimulatedHost]


@pytest.fixture(params=["memory", "folder"])
def host_of(request: pytest.FixtureRequest, tmp_path: Path) -> MakeHost:
    """Gives the same host each time, as every process that opens its folder gets it."""
    if request.param == "folder":
        return lambda: SimulatedHost(tmp_path)
    shared = SimulatedHost()
    return lambda: shared


async def device(driver: SimulatedGpuDriver, uuid: str) -> GpuDevice:
    return next(found for found in (await driver.inventory()).devices if found.uuid == uuid)


async def test_what_is_wrong_outlives_the_driver(host_of: MakeHost) -> None:
    first = SimulatedGpuDriver(2, host=host_of())
    one, two = first.uuids
    first.fail(one, "lost")
    first.set_processes(two, [9, 7, 9])
    first.fail_driver("gone; load it")

    again = SimulatedGpuDriver(2, host=host_of())

    with pytest.raises(GpuError, match="cannot read the GPUs: gone; load it"):
        await again.inventory()
    again.restore_driver()
    assert [(found.fault, found.process_ids) for found in (await again.inventory()).devices] == [
        ("lost", ()),
        (None, (7, 9)),
    ]


async def test_each_change_makes_a_look_worthwhile_once(host_of: MakeHost) -> None:
    driver, tool = SimulatedGpuDriver(1, host=host_of()), SimulatedGpuDriver(1, host=host_of())
    (uuid,) = driver.uuids
    assert not await driver.changed(0)
    for change in (
        lambda: tool.fail(uuid),
        lambda: tool.restore(uuid),
        lambda: tool.set_processes(uuid, [4]),
        tool.fail_driver,
        tool.restore_driver,
    ):
        change()
        assert await driver.changed(60)
        assert not await driver.changed(0)
    waiting = asyncio.create_task(driver.changed(60))
    await asyncio.sleep(0)
    tool.fail(uuid)
    assert await waiting


async def test_only_what_happened_in_the_past_is_forgotten(host_of: MakeHost) -> None:
    driver = SimulatedGpuDriver(2, host=host_of())
    past, lasting = driver.uuids
    driver.fail(past, "Xid 31 was reported", lasting=False)
    driver.set_processes(past, [5])
    driver.fail(lasting, "lost")

    for uuid in (past, lasting, "GPU-unknown"):
        await driver.forget_faults(uuid)

    healthy = await device(driver, past)
    assert (healthy.fault, healthy.process_ids) == (None, (5,))
    assert (await device(driver, lasting)).fault == "lost"
    driver.fail(past)
    await driver.forget_faults(past)
    assert (await device(driver, past)).fault


async def test_a_gpu_shows_the_process_of_its_running_container(host_of: MakeHost) -> None:
    runtime, driver = SimulatedRuntime(host=host_of()), SimulatedGpuDriver(2, host=host_of())
    one, two = driver.uuids
    spec = replace(container_spec(), gpu_uuid=one)
    await runtime.ensure_network(NETWORK)
    await runtime.create(spec)
    assert (await device(driver, one)).process_ids == ()
    info = await runtime.start(spec.name)
    assert info.process_id is not None
    assert (await device(driver, one)).process_ids == (info.process_id,)
    assert (await device(driver, two)).process_ids == ()
    await runtime.stop(spec.name, 0)
    assert (await device(driver, one)).process_ids == ()


async def test_a_process_can_outlive_its_container(host_of: MakeHost) -> None:
    runtime, driver = SimulatedRuntime(host=host_of()), SimulatedGpuDriver(1, host=host_of())
    (uuid,) = driver.uuids
    spec = replace(container_spec(), gpu_uuid=uuid)
    await runtime.ensure_network(NETWORK)
    await runtime.create(spec)
    process_id = (await runtime.start(spec.name)).process_id
    assert process_id is not None
    driver.linger(uuid, 3)
    driver.linger(uuid, process_id)
    await runtime.remove(spec.name)
    assert (await device(driver, uuid)).process_ids == (3, process_id)
    driver.set_processes(uuid, [])
    assert (await device(driver, uuid)).process_ids == ()


def test_a_gpu_that_is_not_there_cannot_be_changed() -> None:
    driver = SimulatedGpuDriver(1)
    for attempt in (
        lambda: driver.fail("GPU-unknown"),
        lambda: driver.restore("GPU-unknown"),
        lambda: driver.set_processes("GPU-unknown", []),
        lambda: driver.linger("GPU-unknown", 1),
    ):
        with pytest.raises(KeyError):
            attempt()


async def test_a_file_that_makes_no_sense_is_an_error_of_the_driver_if_it_is_a_gpus(tmp_path: Path) -> None:
    driver = SimulatedGpuDriver(1, host=SimulatedHost(tmp_path))
    for noun in ("containers", "gpus"):
        (tmp_path / noun).mkdir()
    (tmp_path / "containers" / "a.json").write_text("{")
    await driver.inventory()
    (tmp_path / "gpus" / "a.json").write_text("{")
    with pytest.raises(GpuError, match=r"cannot read .*/gpus/a\.json"):
        await driver.inventory()
    assert not await driver.changed(0)
