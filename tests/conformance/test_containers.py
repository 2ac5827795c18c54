"""Owns the conformance suite of the `containers` port: the fake, the simulated runtime and Docker behave alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import uuid4

import pytest

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.domain.containers import (
    ContainerEvent,
    ContainerEventKind,
    ContainerInfo,
    ContainerState,
    NetworkSpec,
    container_name,
)
from medforged.domain.errors import ContainerError, ContainerMissing, ContainerUnavailable
from tests.conformance.container_worlds import DockerWorld, SimulatedWorld, World
from tests.fakes.containers import FakeRuntime
from tests.host import docker_world, tiny_image

ABSENT_IMAGE = f"medforge-test-absent@sha256:{'00' * 32}"


@pytest.fixture(scope="module")
def docker_network() -> Iterator[NetworkSpec]:
    with docker_world.network() as spec:
        yield spec


@pytest.fixture(
    params=[
        pytest.param("fake", marks=pytest.mark.unit),
        pytest.param("simulated", marks=pytest.mark.unit),
        pytest.param("docker", marks=pytest.mark.host),
    ]
)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param != "docker":
        image = f"sim/pack@sha256:{'ab' * 32}"
        simulated = (FakeRuntime if request.param == "fake" else SimulatedRuntime)(images=(image,))
        await simulated.ensure_network(SimulatedWorld(simulated, image).network)
        yield SimulatedWorld(simulated, image)
        return
    spec = request.getfixturevalue("docker_network")
    with docker_world.installation() as instance:
        runtime = docker_world.runtime(instance)
        await runtime.ensure_network(spec)
        made = DockerWorld(runtime, spec, tiny_image.ensure().reference, docker_world.workspace(tmp_path), [])
        try:
            yield made
        finally:
            await runtime.close()
            for name in made.foreign:
                tiny_image.docker("rm", "--force", name)


async def test_describes_itself_and_answers(world: World) -> None:
    await world.runtime.ping()

    assert world.runtime.describe().port == "containers"
    assert world.runtime.describe().real is isinstance(world, DockerWorld)


async def test_network_is_made_once_however_often_it_is_asked_for(world: World) -> None:
    networks = await asyncio.gather(*(world.runtime.ensure_network(world.network) for _ in range(8)))

    assert set(networks) == {await world.runtime.network(world.network.name)}
    found = networks[0]
    assert (found.name, found.bridge) == (world.network.name, world.network.bridge)
    assert (found.subnet, found.gateway, found.endpoints) == (world.network.subnet, world.network.gateway, ())


@pytest.mark.parametrize("change", ["subnet", "dynamic_range", "bridge", "gateway"])
async def test_network_that_is_not_as_it_has_to_be_is_an_error_and_left_alone(world: World, change: str) -> None:
    subnet = IPv4Network("172.28.15.0/24")
    other = {
        "subnet": {"subnet": subnet, "gateway": subnet[1], "dynamic_range": subnet},
        "dynamic_range": {"dynamic_range": world.network.subnet},
        "bridge": {"bridge": "mfctother"},
        "gateway": {"gateway": world.network.subnet[2]},
    }[change]

    with pytest.raises(ContainerError, match=f"network {world.network.name}: it exists.*; .*remove it"):
        await world.runtime.ensure_network(replace(world.network, **other))

    assert (await world.runtime.network(world.network.name)).subnet == world.network.subnet
    await world.runtime.ensure_network(world.network)


async def test_removing_the_network_spares_one_that_is_in_use(world: World) -> None:
    with contextlib.ExitStack() as stack:
        real = isinstance(world, DockerWorld)
        network = stack.enter_context(docker_world.network()) if real else replace(world.network, name="mfct-own")
        await world.runtime.ensure_network(network)
        spec = replace(world.spec(), network=network.name)
        await world.runtime.create(spec)
        await world.runtime.start(spec.name)
        with pytest.raises(ContainerError, match=f"{spec.name} still attached"):
            await world.runtime.remove_network(network.name)
        await world.runtime.remove(spec.name)
        await world.runtime.remove_network(network.name)
        with pytest.raises(ContainerMissing):
            await world.runtime.network(network.name)
        await world.runtime.remove_network(network.name)


async def test_network_that_does_not_exist_is_missing(world: World) -> None:
    with pytest.raises(ContainerMissing, match="mfct-nowhere"):
        await world.runtime.network("mfct-nowhere")


async def test_image_resolves_to_the_same_id_by_reference_and_by_id(world: World) -> None:
    image = world.spec().image

    resolved = await world.runtime.resolve_image(image)

    assert resolved.startswith("sha256:")
    assert await world.runtime.resolve_image(image) == resolved


@pytest.mark.parametrize("image", ["medforge-test-tiny", "medforge-test-tiny:latest", "a@sha256:12", "", "x@md5:00"])
async def test_image_without_a_digest_is_refused(world: World, image: str) -> None:
    with pytest.raises(ContainerError, match="not pinned by digest"):
        await world.runtime.resolve_image(image)
    with pytest.raises(ContainerError, match="not pinned by digest"):
        await world.runtime.create(replace(world.spec(), image=image))


async def test_image_that_is_not_there_is_an_error_that_says_what_to_do(world: World) -> None:
    with pytest.raises(ContainerError, match=r"not on this host; .*pull"):
        await world.runtime.resolve_image(ABSENT_IMAGE)
    with pytest.raises(ContainerError, match=r"not on this host; .*pull"):
        await world.runtime.create(replace(world.spec(), image=ABSENT_IMAGE))


async def test_created_container_exists_and_does_not_run(world: World) -> None:
    spec = world.spec()

    identity = await world.runtime.create(spec)

    assert await world.runtime.inspect(spec.name) == ContainerInfo(
        spec.name, ContainerState.CREATED, identity, spec.session_id
    )
    assert (await world.runtime.network(world.network.name)).endpoints == ()


async def test_creating_again_returns_the_same_container(world: World) -> None:
    spec = world.spec()

    created = await asyncio.gather(*(world.runtime.create(spec) for _ in range(5)))
    await world.runtime.start(spec.name)

    assert {*created, await world.runtime.create(spec)} == {created[0]}
    assert (await world.runtime.inspect(spec.name)).state is ContainerState.RUNNING


async def test_container_of_another_session_is_not_taken_for_ours(world: World) -> None:
    spec = world.spec()
    identity = await world.runtime.create(spec)

    with pytest.raises(ContainerError, match=f"exists for session {spec.session_id}"):
        await world.runtime.create(replace(spec, session_id=uuid4()))

    assert (await world.runtime.inspect(spec.name)).id == identity


async def test_started_container_has_an_address_of_the_range_and_a_process(world: World) -> None:
    spec = world.spec()
    identity = await world.runtime.create(spec)

    info = await world.runtime.start(spec.name)

    assert (info.name, info.id, info.session_id, info.state) == (
        spec.name,
        identity,
        spec.session_id,
        ContainerState.RUNNING,
    )
    assert isinstance(info.address, IPv4Address)
    assert info.address in world.network.dynamic_range
    assert info.process_id is not None
    assert (info.exit_code, info.oom_killed) == (None, False)
    assert await world.runtime.inspect(spec.name) == info


async def test_starting_a_running_container_leaves_it_as_it_is(world: World) -> None:
    spec = world.spec()
    started = await world.started(spec)

    assert await world.runtime.start(spec.name) == started


async def test_network_shows_who_is_attached(world: World) -> None:
    specs = [world.spec() for _ in range(3)]
    infos = await asyncio.gather(*(world.started(spec) for spec in specs))
    await world.runtime.stop(specs[2].name, 0)

    endpoints = (await world.runtime.network(world.network.name)).endpoints

    assert {(end.container_name, end.address, end.process_id) for end in endpoints} == {
        (info.name, info.address, info.process_id) for info in infos[:2]
    }
    assert len({info.address for info in infos}) == 3


async def test_network_shows_the_new_process_of_a_container_that_was_started_again(world: World) -> None:
    spec = world.spec()
    first = await world.started(spec)
    await world.runtime.network(world.network.name)
    await world.runtime.stop(spec.name, 0)
    again = await world.runtime.start(spec.name)

    (endpoint,) = (await world.runtime.network(world.network.name)).endpoints

    assert endpoint.process_id == again.process_id != first.process_id


async def test_starting_what_does_not_exist(world: World) -> None:
    with pytest.raises(ContainerMissing, match="does not exist"):
        await world.runtime.start(container_name(docker_world.new_slug()))


async def test_container_whose_program_ends_at_once_is_never_returned_as_started_and_dead(world: World) -> None:
    spec = world.short_lived()
    await world.runtime.create(spec)

    (outcome,) = await asyncio.gather(world.runtime.start(spec.name), return_exceptions=True)

    if isinstance(outcome, ContainerInfo):  # the look was quicker than the program's end
        assert outcome.state is ContainerState.RUNNING
        assert outcome.address is not None
    else:
        assert isinstance(outcome, ContainerError)
        assert "its program ended at once" in str(outcome)

    await docker_world.until(lambda: world.ended(spec.name))
    assert (await world.runtime.inspect(spec.name)).exit_code == 3


async def test_starting_in_a_network_that_is_gone(world: World) -> None:
    spec = replace(world.spec(), network="mfct-nowhere")
    await world.runtime.create(spec)

    with pytest.raises(ContainerError, match="its network does not exist; restart medforged"):
        await world.runtime.start(spec.name)

    assert (await world.runtime.inspect(spec.name)).state is ContainerState.CREATED


async def test_stopped_container_has_neither_address_nor_process(world: World) -> None:
    spec = world.spec()
    await world.started(spec)

    await world.runtime.stop(spec.name, 0)

    seen = await world.runtime.inspect(spec.name)
    assert seen.state is ContainerState.EXITED
    assert (seen.address, seen.process_id) == (None, None)
    assert seen.exit_code in (137, 143)  # killed, or quick enough to end when asked to
    assert (await world.runtime.network(world.network.name)).endpoints == ()


async def test_stopping_what_does_not_run_is_no_error(world: World) -> None:
    spec = world.spec()
    await world.runtime.stop(spec.name, 5)
    await world.runtime.create(spec)
    await world.runtime.stop(spec.name, 5)
    assert (await world.runtime.inspect(spec.name)).state is ContainerState.CREATED
    await world.runtime.start(spec.name)
    await asyncio.gather(*(world.runtime.stop(spec.name, 0) for _ in range(3)))
    assert (await world.runtime.inspect(spec.name)).state is ContainerState.EXITED


async def test_removed_container_is_missing(world: World) -> None:
    specs = [world.spec() for _ in range(3)]
    await world.runtime.create(specs[0])
    await world.started(specs[1])
    await world.started(specs[2])
    await world.runtime.stop(specs[2].name, 0)

    await asyncio.gather(*(world.runtime.remove(spec.name) for spec in specs * 2))

    for spec in specs:
        assert await world.runtime.inspect(spec.name) == ContainerInfo(spec.name, ContainerState.MISSING)
    assert await world.runtime.containers() == ()


async def test_container_can_be_made_again_after_its_removal(world: World) -> None:
    spec = world.spec()
    first = (await world.started(spec)).id
    await world.runtime.remove(spec.name)

    second = await world.started(spec)

    assert second.id != first
    assert second.state is ContainerState.RUNNING


async def test_containers_are_listed_in_every_state(world: World) -> None:
    specs = sorted((world.spec() for _ in range(3)), key=lambda spec: spec.name)
    await world.runtime.create(specs[0])
    await world.started(specs[1])
    await world.started(specs[2])
    await world.end(specs[2].name, 9)

    listed = await world.runtime.containers()

    assert [(info.name, info.session_id) for info in listed] == [(spec.name, spec.session_id) for spec in specs]
    assert [info.state for info in listed] == [ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED]
    seen = [await world.runtime.inspect(spec.name) for spec in specs]
    assert [(info.name, info.id, info.state, info.session_id) for info in listed] == [
        (info.name, info.id, info.state, info.session_id) for info in seen
    ]


async def test_death_is_seen_with_its_status(world: World) -> None:
    spec = world.spec()
    await world.started(spec)

    await world.end(spec.name, 42)

    seen = await world.runtime.inspect(spec.name)
    assert (seen.state, seen.exit_code, seen.oom_killed) == (ContainerState.EXITED, 42, False)


async def test_container_of_somebody_else_is_an_error_and_never_touched(world: World) -> None:
    spec = world.spec()
    world.occupy(spec.name)

    for attempt in (
        lambda: world.runtime.create(spec),
        lambda: world.runtime.start(spec.name),
        lambda: world.runtime.stop(spec.name, 0),
        lambda: world.runtime.remove(spec.name),
        lambda: world.runtime.inspect(spec.name),
        lambda: world.runtime.logs(spec.name, 10),
    ):
        with pytest.raises(ContainerError, match="was not made by this installation; remove or rename it"):
            await attempt()

    assert await world.runtime.containers() == ()
    assert world.occupied(spec.name)


async def test_log_has_the_last_lines(world: World) -> None:
    spec = world.spec(says="".join(f"line {number} ü\n" for number in range(100)))
    await world.started(spec)

    assert await world.runtime.logs(spec.name, 3) == "line 97 ü\nline 98 ü\nline 99 ü\n"
    assert (await world.runtime.logs(spec.name, 1000)).count("\n") == 100
    assert await world.runtime.logs(spec.name, 0) == ""
    assert await world.runtime.logs(spec.name, -1) == ""
    await world.runtime.stop(spec.name, 0)
    assert await world.runtime.logs(spec.name, 1) == "line 99 ü\n"


async def test_log_of_what_does_not_exist(world: World) -> None:
    with pytest.raises(ContainerMissing, match="does not exist"):
        await world.runtime.logs(container_name(docker_world.new_slug()), 10)


async def test_containers_do_not_wait_for_each_other(world: World) -> None:
    specs = [world.spec() for _ in range(4)]

    infos = await asyncio.gather(*(world.started(spec) for spec in specs))
    assert {info.state for info in infos} == {ContainerState.RUNNING}
    await asyncio.gather(*(world.runtime.stop(spec.name, 0) for spec in specs))
    await asyncio.gather(*(world.runtime.remove(spec.name) for spec in specs))

    assert await world.runtime.containers() == ()


async def test_removal_after_a_cancelled_creation_leaves_nothing(world: World) -> None:
    specs = [world.spec() for _ in range(6)]
    for delay, spec in enumerate(specs):
        creation = asyncio.create_task(world.runtime.create(spec))
        for _ in range(delay):
            await asyncio.sleep(0.002)
        creation.cancel()
        await world.runtime.remove(spec.name)
        # Whatever was still under way when the creation was given up has ended by now.
        assert (await world.runtime.inspect(spec.name)).state is ContainerState.MISSING

    assert await world.runtime.containers() == ()


async def heard(events: AsyncIterator[ContainerEvent], wanted: ContainerEvent) -> None:
    """Read until it is told; the limit is for what never comes."""
    async with asyncio.timeout(20):
        async for event in events:
            if event == wanted:
                return


async def test_what_happens_to_a_container_is_told(world: World) -> None:
    spec = world.spec()

    def event(kind: ContainerEventKind) -> ContainerEvent:
        return ContainerEvent(kind, spec.name, spec.session_id)

    async with world.runtime.subscribe() as events, world.runtime.subscribe() as others:
        await world.started(spec)
        await heard(events, event(ContainerEventKind.START))
        await world.end(spec.name, 5)
        await heard(events, event(ContainerEventKind.DIE))
        await world.runtime.remove(spec.name)
        await heard(events, event(ContainerEventKind.DESTROY))
        for kind in (ContainerEventKind.START, ContainerEventKind.DIE, ContainerEventKind.DESTROY):
            await heard(others, event(kind))


async def test_a_stop_is_told_as_a_death(world: World) -> None:
    spec = world.spec()
    await world.started(spec)
    async with world.runtime.subscribe() as events:
        await world.runtime.stop(spec.name, 0)
        await heard(events, ContainerEvent(ContainerEventKind.KILL, spec.name, spec.session_id))
        await heard(events, ContainerEvent(ContainerEventKind.DIE, spec.name, spec.session_id))


async def test_nothing_is_missed_from_the_subscription_on(world: World) -> None:
    for _ in range(5):
        spec = world.spec()
        await world.started(spec)
        async with world.runtime.subscribe() as events:
            await world.runtime.stop(spec.name, 0)
            await heard(events, ContainerEvent(ContainerEventKind.DIE, spec.name, spec.session_id))


async def test_closing_ends_a_subscription(world: World) -> None:
    async with world.runtime.subscribe() as events:
        await world.runtime.close()
        with pytest.raises(ContainerUnavailable):
            await asyncio.wait_for(anext(events), 20)


async def test_closed_runtime_is_unavailable(world: World) -> None:
    await world.runtime.close()

    with pytest.raises(ContainerUnavailable, match="closed"):
        await world.runtime.ping()
