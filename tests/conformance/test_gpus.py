"""What every GpuDriver does: the fake, the simulated GPUs, and NVML over the scripted library."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from medforged.adapters.nvml import NvmlGpuDriver
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.domain.errors import GpuError
from medforged.domain.gpus import GpuDevice
from medforged.ports.gpus import GpuDriver
from tests.fakes.gpus import FakeGpuDriver
from tests.fixtures.nvml.build import build, load
from tests.fixtures.nvml.script import VARIABLE, NvmlScript

COUNT = 7
UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SOON = 30.0  # a wait that is not meant to run out
QUIET = 0.2  # one that is
PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class Host(Protocol):
    """A driver, and the hands that break and mend what is below it."""

    driver: GpuDriver
    real: bool
    uuids: tuple[str, ...]

    def run(self, uuid: str, process_ids: list[int]) -> None: ...
    def break_device(self, uuid: str) -> None: ...
    def report(self, uuid: str) -> None:
        """Let a GPU report, now, something for which it is faulty until that is forgotten."""
        ...

    def break_driver(self) -> None: ...
    def mend(self) -> None: ...


class FakeHost:
    real = False

    def __init__(self) -> None:
        self.driver = FakeGpuDriver(COUNT)
        self.uuids = self.driver.uuids

    def run(self, uuid: str, process_ids: list[int]) -> None:
        self.driver.change(uuid, process_ids=process_ids)

    def break_device(self, uuid: str) -> None:
        self.driver.change(uuid, fault="the GPU is lost; reboot the host")

    def report(self, uuid: str) -> None:
        self.driver.report(uuid, "the GPU reported an error; replace it")

    def break_driver(self) -> None:
        self.driver.error = "the driver is not loaded; load it"

    def mend(self) -> None:
        self.driver.error = None
        for uuid in self.uuids:
            self.driver.change(uuid)


class SimulatedHost:
    real = False

    def __init__(self) -> None:
        self.driver = SimulatedGpuDriver(COUNT)
        self.uuids = self.driver.uuids

    def run(self, uuid: str, process_ids: list[int]) -> None:
        self.driver.set_processes(uuid, process_ids)

    def break_device(self, uuid: str) -> None:
        self.driver.fail(uuid)

    def report(self, uuid: str) -> None:
        self.driver.fail(uuid, "the GPU reported an error; replace it", lasting=False)

    def break_driver(self) -> None:
        self.driver.fail_driver()

    def mend(self) -> None:
        self.driver.restore_driver()
        for uuid in self.uuids:
            self.driver.restore(uuid)


class NvmlHost:
    real = True

    def __init__(self, script: NvmlScript) -> None:
        self.driver = NvmlGpuDriver()
        self._script = script
        self.uuids = tuple(gpu.uuid for gpu in script.gpus)

    def run(self, uuid: str, process_ids: list[int]) -> None:
        gpu = self._script.gpus[self.uuids.index(uuid)]
        # One program can show up in several of NVML's lists.
        gpu.compute, gpu.graphics, gpu.mps = process_ids[:2], process_ids[1:], process_ids[-1:]
        self._script.write()

    def break_device(self, uuid: str) -> None:
        self._script.fail("*", "GPU_IS_LOST", uuid)

    def report(self, uuid: str) -> None:
        self._script.xid(uuid, 79)

    def break_driver(self) -> None:
        self._script.fail("nvmlDeviceGetCount_v2", "DRIVER_NOT_LOADED")

    def mend(self) -> None:
        self._script.heal()


@pytest.fixture(
    params=[
        pytest.param("fake", marks=pytest.mark.unit),
        pytest.param("simulated", marks=pytest.mark.unit),
        pytest.param("nvml", marks=pytest.mark.integration),
    ]
)
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> Iterator[Host]:
    if request.param == "fake":
        yield FakeHost()
    elif request.param == "simulated":
        yield SimulatedHost()
    else:
        library = load(build(Path(pytestconfig.cache.mkdir("nvml"))))
        script = NvmlScript(tmp_path / "gpus.txt", COUNT)
        monkeypatch.setenv(VARIABLE, str(script.path))
        yield NvmlHost(script)
        assert library.medforgeInitialisations() == 0


@pytest.fixture
async def host(made: Host) -> AsyncIterator[Host]:
    yield made
    await made.driver.close()


async def devices(host: Host) -> dict[str, GpuDevice]:
    return {device.uuid: device for device in (await host.driver.inventory()).devices}


async def test_a_driver_describes_itself(host: Host) -> None:
    await host.driver.inventory()
    description = host.driver.describe()

    assert description.port == "gpus"
    assert description.adapter
    assert description.real is host.real
    assert description.reason


async def test_all_gpus_are_there_in_order(host: Host) -> None:
    inventory = await host.driver.inventory()

    assert tuple(device.uuid for device in inventory.devices) == host.uuids
    assert [device.index for device in inventory.devices] == list(range(COUNT))
    assert inventory.faults == ()


async def test_identities_have_their_proper_forms(host: Host) -> None:
    found = (await host.driver.inventory()).devices

    assert all(UUID.fullmatch(device.uuid) for device in found)
    assert all(PCI.fullmatch(device.pci_address) for device in found)
    assert all(device.name for device in found)
    assert all(device.memory_total_bytes >= 1024**3 for device in found)
    assert len({device.uuid for device in found}) == len({device.pci_address for device in found}) == COUNT


async def test_readings_are_in_their_ranges_or_none(host: Host) -> None:
    for device in (await host.driver.inventory()).devices:
        assert device.memory_used_bytes is None or 0 <= device.memory_used_bytes <= device.memory_total_bytes
        assert device.utilization_percent is None or 0 <= device.utilization_percent <= 100
        assert device.temperature_celsius is None or -40 <= device.temperature_celsius <= 150
        assert device.power_milliwatts is None or 0 <= device.power_milliwatts <= 2_000_000
        assert device.fault is None


async def test_two_looks_at_an_unchanged_host_are_equal(host: Host) -> None:
    assert await host.driver.inventory() == await host.driver.inventory()


async def test_looks_at_the_same_time_are_equal(host: Host) -> None:
    first, *others = await asyncio.gather(*(host.driver.inventory() for _ in range(4)))

    assert all(other == first for other in others)


async def test_processes_are_unique_and_sorted_and_belong_to_their_gpu(host: Host) -> None:
    host.run(host.uuids[2], [4242, 17, 901, 17])

    found = await devices(host)

    assert found[host.uuids[2]].process_ids == (17, 901, 4242)
    assert all(device.process_ids == () for uuid, device in found.items() if uuid != host.uuids[2])


async def test_ended_processes_disappear(host: Host) -> None:
    host.run(host.uuids[2], [4242])
    await host.driver.inventory()
    host.run(host.uuids[2], [])

    assert (await devices(host))[host.uuids[2]].process_ids == ()


async def test_one_broken_gpu_hides_no_other(host: Host) -> None:
    before = await devices(host)
    broken = host.uuids[3]
    host.break_device(broken)

    inventory = await host.driver.inventory()

    assert tuple(device.uuid for device in inventory.devices) == host.uuids
    for device in inventory.devices:
        if device.uuid == broken:
            assert device.fault
            assert (device.name, device.pci_address) == (before[broken].name, before[broken].pci_address)
            assert device.memory_total_bytes == before[broken].memory_total_bytes
        else:
            assert device == before[device.uuid]


async def test_all_gpus_may_be_broken(host: Host) -> None:
    await host.driver.inventory()
    for uuid in host.uuids:
        host.break_device(uuid)

    found = await devices(host)

    assert tuple(found) == host.uuids
    assert all(device.fault for device in found.values())


async def test_a_mended_gpu_is_healthy_again(host: Host) -> None:
    before = await devices(host)
    host.break_device(host.uuids[0])
    assert (await devices(host))[host.uuids[0]].fault
    host.mend()

    after = await devices(host)

    assert {uuid: replace(device, fault=None) for uuid, device in after.items()} == before
    assert all(device.fault is None for device in after.values())


async def test_a_driver_that_does_not_answer_is_an_error_with_reason_and_remedy(host: Host) -> None:
    host.break_driver()

    with pytest.raises(GpuError, match=r"^cannot read the GPUs: .+; .+"):
        await host.driver.inventory()


async def test_a_driver_that_answers_again_needs_no_restart(host: Host) -> None:
    before = await devices(host)
    host.break_driver()
    with pytest.raises(GpuError):
        await host.driver.inventory()
    host.mend()

    assert await devices(host) == before


async def settled(host: Host) -> None:
    """Look until there is no news any more."""
    await host.driver.inventory()
    while await host.driver.changed(QUIET):
        await host.driver.inventory()


async def faulty(host: Host) -> list[str]:
    return [uuid for uuid, device in (await devices(host)).items() if device.fault]


async def test_a_wait_in_which_nothing_happens_runs_out(host: Host) -> None:
    await settled(host)

    assert not await host.driver.changed(QUIET)
    assert not await host.driver.changed(0)


async def test_a_report_ends_a_wait_and_the_next_look_knows_why(host: Host) -> None:
    await settled(host)
    waiting = asyncio.create_task(host.driver.changed(SOON))
    await asyncio.sleep(0)
    host.report(host.uuids[4])

    assert await waiting
    assert await faulty(host) == [host.uuids[4]]


async def test_a_report_between_two_waits_is_told_once(host: Host) -> None:
    await settled(host)
    host.report(host.uuids[4])

    assert await host.driver.changed(SOON)
    assert await faulty(host) == [host.uuids[4]]
    assert not await host.driver.changed(QUIET)


async def test_a_cancelled_wait_takes_no_report_away(host: Host) -> None:
    await settled(host)
    waiting = asyncio.create_task(host.driver.changed(SOON))
    await asyncio.sleep(0)
    host.report(host.uuids[4])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert await host.driver.changed(SOON)


async def test_a_wait_hinders_no_look(host: Host) -> None:
    await settled(host)
    waiting = asyncio.create_task(host.driver.changed(SOON))

    for _ in range(5):
        assert await faulty(host) == []
    waiting.cancel()


async def test_waits_fail_with_nothing_else(host: Host) -> None:
    assert not await host.driver.changed(QUIET)  # before any look
    await settled(host)
    host.break_device(host.uuids[0])
    host.break_driver()
    with pytest.raises(GpuError):
        await host.driver.inventory()

    while await host.driver.changed(QUIET):
        pass
    await host.driver.close()
    assert not await host.driver.changed(QUIET)


async def test_what_was_reported_stays_until_it_is_forgotten(host: Host) -> None:
    await settled(host)
    one, other = host.uuids[1], host.uuids[5]
    host.report(one)
    host.report(other)
    for _ in range(2):
        assert await faulty(host) == [one, other]

    await host.driver.forget_faults(one)
    assert await faulty(host) == [other]

    host.report(one)
    assert await faulty(host) == [one, other]


async def test_what_is_still_wrong_is_not_forgotten(host: Host) -> None:
    await settled(host)
    host.break_device(host.uuids[2])

    await host.driver.forget_faults(host.uuids[2])

    assert await faulty(host) == [host.uuids[2]]


async def test_nothing_is_forgotten_of_what_nobody_knows(host: Host) -> None:
    await host.driver.forget_faults("GPU-00000000-0000-0000-0000-000000000000")
    await host.driver.forget_faults(host.uuids[0])

    assert await faulty(host) == []


async def test_a_closed_driver_says_so(host: Host) -> None:
    await host.driver.inventory()
    await host.driver.close()

    with pytest.raises(GpuError, match="closed"):
        await host.driver.inventory()


async def test_close_is_safe_twice_and_without_a_look(host: Host) -> None:
    await host.driver.close()
    await host.driver.close()
