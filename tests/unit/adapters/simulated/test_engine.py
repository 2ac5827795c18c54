"""What happens to simulated containers by themselves, how it is told, and that it may happen from another process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.host import SimulatedHost
from medforged.domain.containers import (
    ContainerEvent,
    ContainerEventKind,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    NetworkSpec,
)
from medforged.domain.errors import ContainerError, ContainerMissing, ContainerUnavailable
from tests.fakes.containers import container_spec

pytestmark = pytest.mark.integration

SUBNET = IPv4Network("10.20.0.0/16")
NETWORK = NetworkSpec("fake-sessions", SUBNET, SUBNET[1], IPv4Network("10.20.128.0/17"), "fake0")
SPEC, OTHER = container_spec("aaaaaaaa"), container_spec("bbbbbbbb")
MakeHost = Callable[[], SimulatedHost]


@pytest.fixture(params=["memory", "folder"])
def host_of(request: pytest.FixtureRequest, tmp_path: Path) -> MakeHost:
    """Gives the same host each time, as every process that opens its folder gets it."""
    if request.param == "folder":
        return lambda: SimulatedHost(tmp_path)
    shared = SimulatedHost()
    return lambda: shared


async def running(runtime: SimulatedRuntime, *specs: ContainerSpec) -> list[ContainerInfo]:
    await runtime.ensure_network(NETWORK)
    for spec in specs:
        await runtime.create(spec)
    return [await runtime.start(spec.name) for spec in specs]


def event(kind: ContainerEventKind, spec: ContainerSpec = SPEC) -> ContainerEvent:
    return ContainerEvent(kind, spec.name, spec.session_id)


async def told(events: AsyncIterator[ContainerEvent], count: int) -> list[str]:
    """The kinds of the next events, which are of one container or network."""
    found = [await anext(events) for _ in range(count)]
    assert len({(one.name, one.session_id) for one in found}) == 1
    return [one.kind.value for one in found]


async def test_everything_is_found_by_the_next_daemon(host_of: MakeHost) -> None:
    first = SimulatedRuntime(host=host_of())
    (before, _) = await running(first, SPEC, OTHER)
    first.die(OTHER.name, exit_code=9, oom_killed=True)
    first.say(SPEC.name, "one\ntwo\n")
    first.occupy("mf-session-foreign")
    # No close: it was killed.
    again = SimulatedRuntime(host=host_of())

    assert await again.inspect(SPEC.name) == before
    seen = await again.inspect(OTHER.name)
    assert (seen.state, seen.exit_code, seen.oom_killed) == (ContainerState.EXITED, 9, True)
    assert [summary.session_id for summary in await again.containers()] == [SPEC.session_id, OTHER.session_id]
    assert await again.ensure_network(NETWORK) == await first.network(NETWORK.name)
    assert await again.logs(SPEC.name, 1) == "two\n"
    assert await again.create(SPEC) == before.id
    with pytest.raises(ContainerError, match="was not made by this installation"):
        await again.stop("mf-session-foreign", 0)


async def test_a_life_is_told_in_the_words_of_an_engine(host_of: MakeHost) -> None:
    runtime = SimulatedRuntime(host=host_of())
    async with asyncio.timeout(10), runtime.subscribe() as events:
        await runtime.ensure_network(NETWORK)
        assert await told(events, 1) == ["network"]
        await runtime.create(SPEC)
        await runtime.start(SPEC.name)
        await runtime.start(SPEC.name)
        assert await anext(events) == event(ContainerEventKind.START)
        await runtime.stop(SPEC.name, 1)
        await runtime.stop(SPEC.name, 1)
        assert await told(events, 2) == ["kill", "die"]
        await runtime.start(SPEC.name)
        runtime.die(SPEC.name)
        assert await told(events, 2) == ["start", "die"]
        await runtime.start(SPEC.name)
        runtime.die(SPEC.name, oom_killed=True)
        assert await told(events, 3) == ["start", "oom", "die"]
        await runtime.remove(SPEC.name)
        await runtime.remove(SPEC.name)
        assert await told(events, 1) == ["destroy"]
        await running(runtime, SPEC)
        await runtime.remove(SPEC.name)
        assert await told(events, 4) == ["start", "kill", "die", "destroy"]
        await running(runtime, SPEC)
        runtime.vanish(SPEC.name)
        assert await told(events, 3) == ["start", "die", "destroy"]
        runtime.occupy(SPEC.name)
        await runtime.remove_network(NETWORK.name)
        assert await anext(events) == ContainerEvent(ContainerEventKind.NETWORK, NETWORK.name)


async def test_a_death_in_another_process_is_told(host_of: MakeHost) -> None:
    daemon = SimulatedRuntime(host=host_of())
    await running(daemon, SPEC)
    async with asyncio.timeout(10), daemon.subscribe() as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        SimulatedRuntime(host=host_of()).die(SPEC.name, exit_code=3)
        assert await waiting == event(ContainerEventKind.DIE)
    assert (await daemon.inspect(SPEC.name)).exit_code == 3


async def test_a_program_that_knows_only_the_files_lets_a_container_die(tmp_path: Path) -> None:
    daemon = SimulatedRuntime(host=SimulatedHost(tmp_path))
    (info,) = await running(daemon, SPEC)
    path = tmp_path / "containers" / f"{SPEC.name}.json"
    item = json.loads(path.read_text())
    assert {
        "name": SPEC.name,
        "id": info.id,
        "state": "running",
        "session_id": str(SPEC.session_id),
        "slug": "aaaaaaaa",
        "network": NETWORK.name,
        "address": str(info.address),
        "process_id": info.process_id,
        "exit_code": None,
        "oom_killed": False,
        "gpu_uuid": SPEC.gpu_uuid,
    }.items() <= item.items()
    async with asyncio.timeout(10), daemon.subscribe() as events:
        changed = item | {"state": "exited", "exit_code": 137, "oom_killed": True, "address": None, "process_id": None}
        (path.parent / ".tmp").write_text(json.dumps(changed))
        (path.parent / ".tmp").replace(path)
        assert await told(events, 2) == ["oom", "die"]
        path.unlink()
        assert await told(events, 1) == ["destroy"]
    assert (await daemon.inspect(SPEC.name)).state is ContainerState.MISSING


async def test_every_subscriber_is_told_and_only_while_subscribed(host_of: MakeHost) -> None:
    runtime = SimulatedRuntime(host=host_of())
    await running(runtime, SPEC, OTHER)
    async with asyncio.timeout(10), runtime.subscribe() as first:
        async with runtime.subscribe() as second:
            runtime.die(SPEC.name)
            assert await anext(first) == await anext(second) == event(ContainerEventKind.DIE)
        runtime.die(OTHER.name)
        assert await anext(first) == event(ContainerEventKind.DIE, OTHER)


async def test_an_outage_ends_subscriptions_and_refuses_new_ones(host_of: MakeHost) -> None:
    runtime = SimulatedRuntime(host=host_of())
    async with asyncio.timeout(10), runtime.subscribe() as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        SimulatedRuntime(host=host_of()).begin_outage()
        with pytest.raises(ContainerUnavailable, match="cannot follow the containers: the container engine does not"):
            await waiting
    with pytest.raises(ContainerUnavailable, match="cannot subscribe: the container engine does not answer"):
        async with runtime.subscribe():
            pass
    with pytest.raises(ContainerUnavailable):
        await SimulatedRuntime(host=host_of()).ping()
    runtime.end_outage()
    async with runtime.subscribe():
        pass


async def test_closing_ends_subscriptions_of_this_adapter_alone(host_of: MakeHost) -> None:
    runtime, other = SimulatedRuntime(host=host_of()), SimulatedRuntime(host=host_of())
    await running(runtime, SPEC)
    async with asyncio.timeout(10), runtime.subscribe() as events, other.subscribe() as others:
        await runtime.close()
        await runtime.close()
        with pytest.raises(ContainerUnavailable, match=r"cannot follow the containers: .*closed"):
            await anext(events)
        other.die(SPEC.name)
        assert await anext(others) == event(ContainerEventKind.DIE)
    with pytest.raises(ContainerUnavailable, match="closed"):
        async with runtime.subscribe():
            pass


async def test_a_restart_of_the_engine_ends_every_container_and_tells_nobody(host_of: MakeHost) -> None:
    runtime = SimulatedRuntime(host=host_of())
    await running(runtime, SPEC)
    await runtime.create(OTHER)
    async with asyncio.timeout(10), runtime.subscribe() as events:
        SimulatedRuntime(host=host_of()).restart_engine()
        with pytest.raises(ContainerUnavailable, match="restarted"):
            await anext(events)
    seen = await runtime.inspect(SPEC.name)
    assert (seen.state, seen.exit_code, seen.address) == (ContainerState.EXITED, 137, None)
    assert (await runtime.inspect(OTHER.name)).state is ContainerState.CREATED
    assert (await runtime.network(NETWORK.name)).endpoints == ()
    async with asyncio.timeout(10), runtime.subscribe() as events:
        await runtime.start(SPEC.name)
        assert await told(events, 1) == ["start"]
    runtime.restart_engine(exit_code=255)
    assert (await runtime.inspect(SPEC.name)).exit_code == 255


async def test_a_hanging_call_holds_up_no_other() -> None:
    runtime = SimulatedRuntime()
    await running(runtime, SPEC, OTHER)
    hang = runtime.hang("stop", SPEC.name)
    stuck = asyncio.create_task(runtime.stop(SPEC.name, 1))
    await hang.arrived()
    await runtime.stop(OTHER.name, 1)
    assert (await runtime.inspect(SPEC.name)).state is ContainerState.RUNNING
    assert not stuck.done()
    hang.release()
    await stuck
    assert (await runtime.inspect(SPEC.name)).state is ContainerState.EXITED
    with pytest.raises(ValueError, match="no method 'halt'"):
        runtime.hang("halt")


async def test_what_must_exist_does_not(host_of: MakeHost) -> None:
    runtime = SimulatedRuntime(host=host_of())
    for attempt in (
        lambda: runtime.die("absent"),
        lambda: runtime.die_after_looks("absent", 1),
        lambda: runtime.say("absent", "x"),
        lambda: runtime.vanish("absent"),
    ):
        with pytest.raises(ContainerMissing):
            attempt()


async def test_a_file_that_makes_no_sense_is_an_error_of_the_port_and_hides_no_other(tmp_path: Path) -> None:
    runtime = SimulatedRuntime(host=SimulatedHost(tmp_path))
    await running(runtime, SPEC, OTHER)
    (tmp_path / "containers" / f"{SPEC.name}.json").write_text("{")
    for attempt in (lambda: runtime.inspect(SPEC.name), runtime.containers):
        with pytest.raises(ContainerError, match=rf"cannot read .*{SPEC.name}\.json"):
            await attempt()
    assert (await runtime.inspect(OTHER.name)).state is ContainerState.RUNNING


async def test_five_hundred_are_listed_quickly_and_cost_one_file_each(tmp_path: Path) -> None:
    runtime = SimulatedRuntime(host=SimulatedHost(tmp_path))
    await running(runtime, *(container_spec(f"{number:08d}") for number in range(500)))
    assert len(list((tmp_path / "containers").iterdir())) == 500
    before = {path.name: path.stat().st_ino for path in (tmp_path / "containers").iterdir()}
    await runtime.stop("mf-session-00000007", 0)
    after = {path.name: path.stat().st_ino for path in (tmp_path / "containers").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"mf-session-00000007.json"}

    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert len(await runtime.containers()) == 500
        seconds.append(time.perf_counter() - began)

    assert min(seconds) < 0.1
