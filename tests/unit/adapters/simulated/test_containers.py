"""Owns the tests of what a test or a demonstration does to simulated containers, and of the fake that is made of them."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.domain.containers import ContainerSpec, ContainerState, NetworkSpec, container_name
from medforged.domain.errors import ContainerError, ContainerMissing, ContainerUnavailable
from tests.fakes.containers import FakeRuntime, container_spec

pytestmark = pytest.mark.unit

SUBNET = IPv4Network("10.20.0.0/16")
NETWORK = NetworkSpec("fake-sessions", SUBNET, SUBNET[1], IPv4Network("10.20.128.0/17"), "fake0")
SPEC = container_spec()


async def running(runtime: SimulatedRuntime, spec: ContainerSpec = SPEC) -> SimulatedRuntime:
    await runtime.ensure_network(NETWORK)
    await runtime.create(spec)
    await runtime.start(spec.name)
    return runtime


async def test_failure_comes_as_often_as_it_was_ordered() -> None:
    runtime = SimulatedRuntime()
    runtime.fail("create", "the disk is full", times=2)

    for _ in range(2):
        with pytest.raises(ContainerError, match=r"cannot create: the disk is full \(simulated\)"):
            await runtime.create(SPEC)

    assert await runtime.create(SPEC)


async def test_failure_of_something_that_the_port_does_not_have() -> None:
    with pytest.raises(ValueError, match="no method 'crate'"):
        SimulatedRuntime().fail("crate", "typing error")


async def test_outage_is_everywhere_and_ends() -> None:
    runtime = await running(SimulatedRuntime())
    runtime.begin_outage()
    for attempt in (runtime.ping(), runtime.inspect(SPEC.name), runtime.containers(), runtime.stop(SPEC.name, 1)):
        with pytest.raises(ContainerUnavailable, match="does not answer"):
            await attempt

    runtime.end_outage()

    assert (await runtime.inspect(SPEC.name)).state is ContainerState.RUNNING


@pytest.mark.parametrize("oom_killed", [True, False])
async def test_death(oom_killed: bool) -> None:
    runtime = await running(SimulatedRuntime())

    runtime.die(SPEC.name, exit_code=9, oom_killed=oom_killed)

    seen = await runtime.inspect(SPEC.name)
    assert (seen.state, seen.exit_code, seen.oom_killed) == (ContainerState.EXITED, 9, oom_killed)
    assert (seen.address, seen.process_id) == (None, None)


async def test_death_after_a_number_of_looks() -> None:
    runtime = await running(SimulatedRuntime())
    runtime.die_after_looks(SPEC.name, 2)

    states = [(await runtime.inspect(SPEC.name)).state for _ in range(2)]
    states += [info.state for info in await runtime.containers()]

    assert states == [ContainerState.RUNNING, ContainerState.RUNNING, ContainerState.EXITED]


async def test_container_that_vanishes_is_missing() -> None:
    runtime = await running(SimulatedRuntime())

    runtime.vanish(SPEC.name)

    assert (await runtime.inspect(SPEC.name)).state is ContainerState.MISSING
    with pytest.raises(ContainerMissing):
        runtime.vanish(SPEC.name)


async def test_simulated_process_is_none_of_the_hosts() -> None:
    runtime = await running(SimulatedRuntime())

    process_id = (await runtime.inspect(SPEC.name)).process_id

    assert process_id is not None
    assert process_id > 4194304  # PID_MAX_LIMIT of the kernel
    assert not Path(f"/proc/{process_id}").exists()  # noqa: ASYNC240 - a look into procfs


async def test_addresses_are_used_up_and_given_back() -> None:
    runtime = SimulatedRuntime()
    small = NetworkSpec("fake-sessions", SUBNET, SUBNET[1], IPv4Network("10.20.0.0/30"), "fake0")
    await runtime.ensure_network(small)
    names = []
    for slug in ("aaaaaaaa", "bbbbbbbb", "cccccccc"):
        await runtime.create(container_spec(slug))
        names.append(container_name(slug))

    addresses = [(await runtime.start(name)).address for name in names[:2]]
    assert addresses == [SUBNET[2], SUBNET[3]]  # neither the network's own nor the gateway's
    with pytest.raises(ContainerError, match="every address of network fake-sessions is in use"):
        await runtime.start(names[2])
    await runtime.stop(names[0], 1)

    assert (await runtime.start(names[2])).address == addresses[0]


async def test_many_containers_at_once() -> None:
    runtime = SimulatedRuntime()
    await runtime.ensure_network(NETWORK)
    specs = [container_spec(f"{number:08d}") for number in range(300)]

    await asyncio.gather(*(running(runtime, spec) for spec in specs))

    endpoints = (await runtime.network(NETWORK.name)).endpoints
    assert len(await runtime.containers()) == len(endpoints) == 300
    assert len({end.address for end in endpoints}) == len({end.process_id for end in endpoints}) == 300


async def test_latency_is_taken_by_every_call() -> None:
    runtime = SimulatedRuntime(latency_seconds=0.01)
    loop = asyncio.get_running_loop()
    began = loop.time()

    await runtime.ping()

    assert loop.time() - began >= 0.009


async def test_fake_remembers_calls_and_can_hold_them() -> None:
    runtime = FakeRuntime()
    await runtime.ensure_network(NETWORK)
    runtime.hold("create")
    creation = asyncio.create_task(runtime.create(SPEC))
    await runtime.arrived("create")
    assert (await runtime.inspect(SPEC.name)).state is ContainerState.MISSING

    runtime.release("create")
    await creation

    assert runtime.journal == [
        "ensure_network fake-sessions",
        "create mf-session-abcd2345",
        "inspect mf-session-abcd2345",
    ]
    assert (await runtime.inspect(SPEC.name)).state is ContainerState.CREATED
