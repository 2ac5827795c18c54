"""Owns the attempts of images, names, variables and logs to get more than they should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medforged.adapters.docker import DockerRuntime
from medforged.domain.containers import ContainerInfo, ContainerSpec, ContainerState, NetworkSpec, container_name
from medforged.domain.errors import ContainerError
from tests.host import docker_world, tiny_image

pytestmark = pytest.mark.host

MIB = 1 << 20


@pytest.fixture(scope="module")
def network() -> Iterator[NetworkSpec]:
    with docker_world.network() as spec:
        yield spec


@pytest.fixture
def instance() -> Iterator[str]:
    with docker_world.installation() as name:
        yield name


@pytest.fixture
async def runtime(instance: str, network: NetworkSpec) -> AsyncIterator[DockerRuntime]:
    runtime = docker_world.runtime(instance)
    await runtime.ensure_network(network)
    yield runtime
    await runtime.close()


@pytest.fixture
def spec(network: NetworkSpec, tmp_path: Path) -> ContainerSpec:
    return docker_world.spec(network.name, tiny_image.ensure().reference, docker_world.workspace(tmp_path))


async def run(runtime: DockerRuntime, spec: ContainerSpec, image: tiny_image.TinyImage) -> ContainerInfo:
    await runtime.create(replace(spec, image=image.reference))
    return await runtime.start(spec.name)


async def finished(name: str) -> bool:
    return tiny_image.docker("exec", name, "sh", "-c", "test -e /tmp/finished && echo yes || true") == "yes"


# Labels.


async def test_labels_of_an_image_make_nothing_ours(runtime: DockerRuntime, instance: str, spec: ContainerSpec) -> None:
    base = tiny_image.ensure()
    image = tiny_image.ensure(
        f"LABEL dev.medforge.instance={instance} dev.medforge.session={spec.session_id} "
        f"dev.medforge.slug={spec.slug} dev.medforge.image={base.id}"
    )
    tiny_image.docker("run", "--detach", "--network", "none", "--name", spec.name, image.id)
    try:
        labels = docker_world.inspected(spec.name)["Config"]["Labels"]
        assert labels["dev.medforge.instance"] == instance  # the trap is set

        assert await runtime.containers() == ()
        for attempt in (runtime.inspect, runtime.start, runtime.remove):
            with pytest.raises(ContainerError, match="was not made by this installation"):
                await attempt(spec.name)
        with pytest.raises(ContainerError, match="was not made by this installation"):
            await runtime.stop(spec.name, 0)
        with pytest.raises(ContainerError, match="was not made by this installation"):
            await runtime.create(spec)
        assert docker_world.inspected(spec.name)["State"]["Running"]
    finally:
        tiny_image.docker("rm", "--force", spec.name)
        tiny_image.docker("rmi", image.tag)


async def test_image_committed_from_a_session_makes_nothing_ours(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    await run(runtime, spec, tiny_image.ensure())
    committed = tiny_image.docker("commit", spec.name)
    copy = container_name(docker_world.new_slug())
    tiny_image.docker("run", "--detach", "--network", "none", "--name", copy, committed)
    try:
        labels = docker_world.inspected(copy)["Config"]["Labels"]
        assert labels == docker_world.inspected(spec.name)["Config"]["Labels"]

        assert [info.name for info in await runtime.containers()] == [spec.name]
        with pytest.raises(ContainerError, match="was not made by this installation"):
            await runtime.remove(copy)
    finally:
        tiny_image.docker("rm", "--force", copy)
        tiny_image.docker("rmi", committed)


async def test_labels_of_an_image_do_not_change_what_a_session_is(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    image = tiny_image.ensure(
        "LABEL dev.medforge.instance=other dev.medforge.session=nonsense dev.medforge.slug=zzzzzzzz dev.medforge.image=x"
    )
    try:
        info = await run(runtime, spec, image)

        (listed,) = await runtime.containers()
        assert (listed.name, listed.id, listed.session_id) == (info.name, info.id, info.session_id)
        assert info.session_id == spec.session_id
        await runtime.remove(spec.name)
    finally:
        tiny_image.docker("rmi", image.tag)


async def test_other_installation_on_the_same_engine_is_somebody_else(
    runtime: DockerRuntime, spec: ContainerSpec
) -> None:
    await run(runtime, spec, tiny_image.ensure())
    with docker_world.installation() as other_name:
        other = docker_world.runtime(other_name)

        assert await other.containers() == ()
        with pytest.raises(ContainerError, match="was not made by this installation"):
            await other.remove(spec.name)

        await other.close()
    assert (await runtime.inspect(spec.name)).state is ContainerState.RUNNING


async def test_beginning_of_an_id_is_nobodys_name(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    identity = await runtime.create(spec)
    for name in (identity, identity[:12], identity[:2]):
        if len(name) > 63:
            with pytest.raises(ContainerError, match="cannot use"):
                await runtime.inspect(name)
            continue
        assert (await runtime.inspect(name)).state is ContainerState.MISSING
        await runtime.remove(name)

    assert (await runtime.inspect(spec.name)).state is ContainerState.CREATED


# What an image declares.


async def test_user_entry_point_and_signal_of_an_image(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    image = tiny_image.ensure(
        "USER 0:0",
        "STOPSIGNAL SIGKILL",
        "EXPOSE 22/tcp",
        "WORKDIR /www",
        'ENTRYPOINT ["/bin/sh", "-c", "trap \\"echo asked > /workspace/asked; exit 0\\" TERM; id > /workspace/id; '
        'pwd >> /workspace/id; while :; do sleep 0.05; done"]',
    )
    try:
        info = await run(runtime, spec, image)

        async def has_begun() -> bool:
            written = spec.workspace / "id"
            return written.exists() and written.read_text().count("\n") == 2

        await docker_world.until(has_begun)
        assert (spec.workspace / "id").read_text() == "uid=1000(tiny) gid=1000(tiny) groups=1000(tiny)\n/www\n"
        assert docker_world.inspected(info.name)["NetworkSettings"]["Ports"] in ({}, {"22/tcp": None})
        await runtime.stop(info.name, 10)
        assert (spec.workspace / "asked").read_text() == "asked\n"  # SIGTERM, and not what the image wants
        await runtime.remove(info.name)
    finally:
        tiny_image.docker("rmi", image.tag)


async def test_health_check_of_an_image_does_not_run(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    image = tiny_image.ensure("HEALTHCHECK --interval=1s CMD touch /workspace/checked")
    try:
        info = await run(runtime, spec, image)

        assert "Health" not in docker_world.inspected(info.name)["State"]
        await runtime.remove(info.name)
    finally:
        tiny_image.docker("rmi", image.tag)


async def test_volumes_that_an_image_declares_go_with_the_container(
    runtime: DockerRuntime, spec: ContainerSpec
) -> None:
    image = tiny_image.ensure("VOLUME /data", "VOLUME /more")
    try:
        info = await run(runtime, spec, image)
        volumes = {mount["Name"] for mount in docker_world.inspected(info.name)["Mounts"] if mount["Type"] == "volume"}
        assert len(volumes) == 2
        assert volumes <= set(tiny_image.docker("volume", "ls", "--quiet").split())

        await runtime.remove(info.name)

        assert not volumes & set(tiny_image.docker("volume", "ls", "--quiet").split())
    finally:
        tiny_image.docker("rmi", image.tag)


async def test_gpus_that_an_image_asks_for_are_overridden(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    image = tiny_image.ensure("ENV NVIDIA_VISIBLE_DEVICES=all")
    try:
        info = await run(runtime, spec, image)

        seen = tiny_image.docker("exec", info.name, "env").splitlines()
        assert [line for line in seen if line.startswith("NVIDIA_")] == [f"NVIDIA_VISIBLE_DEVICES={docker_world.GPU}"]
        await runtime.remove(info.name)
    finally:
        tiny_image.docker("rmi", image.tag)


# Variables.


async def test_value_of_a_variable_stays_one_value(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    value = "first\nLD_PRELOAD=/workspace/evil.so\n$(touch /workspace/ran)`touch /workspace/ran`'\"\\"
    hostile = replace(spec, environment=(*spec.environment, ("HOSTILE", value)))

    info = await run(runtime, hostile, tiny_image.ensure())

    assert tiny_image.docker("exec", info.name, "sh", "-c", 'printf "%s|" "$HOSTILE"') == f"{value}|"
    variables = tiny_image.docker("exec", info.name, "cat", "/proc/1/environ").split("\0")
    assert f"HOSTILE={value}" in variables
    assert not any(variable.startswith("LD_PRELOAD") for variable in variables)
    assert not (spec.workspace / "ran").exists()


# Logs.


async def said(runtime: DockerRuntime, spec: ContainerSpec, program: str) -> str:
    """Start it and return its name once the program has said everything."""
    loud = replace(spec, environment=(*spec.environment, ("TINY", f"{program}; touch /tmp/finished; exec sleep 1000")))
    await runtime.create(loud)
    await runtime.start(spec.name)
    await docker_world.until(lambda: finished(spec.name), seconds=60)
    return spec.name


async def test_huge_log_is_cut_here_and_bounded_on_the_disk(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    name = await said(runtime, spec, f"yes {'0123456789' * 10} | head -c 10000000; echo; echo the end")

    async def flushed() -> bool:
        return (await runtime.logs(name, 1)) == "the end\n"

    await docker_world.until(flushed, seconds=60)
    text = await runtime.logs(name, 10_000_000)

    assert len(text.encode()) == MIB
    assert text.endswith("\nthe end\n")
    files = Path(docker_world.inspected(name)["LogPath"]).parent.glob("*-json.log*")
    assert sum(file.stat().st_size for file in files) < 11 * MIB


async def test_endless_line_is_cut(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    name = await said(runtime, spec, "head -c 3000000 /dev/zero | tr '\\0' x; echo")

    async def flushed() -> bool:
        return (await runtime.logs(name, 1)).endswith("x\n")

    await docker_world.until(flushed, seconds=60)

    assert len((await runtime.logs(name, 1)).encode()) <= MIB


async def test_log_that_is_no_text_is_decoded_all_the_same(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    name = await said(runtime, spec, r"printf 'a\377\376b\0c\033[31md\n'; printf '\303' >&2; printf '\274\n' >&2")

    async def complete() -> bool:
        return (await runtime.logs(name, 10)).count("\n") == 2

    await docker_world.until(complete)
    text = await runtime.logs(name, 10)

    assert "a\ufffd\ufffdb\0c\x1b[31md\n" in text
    text.encode()


async def test_looks_do_not_wait_for_a_stop(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    name = await said(runtime, spec, "trap '' TERM")
    # `exec sleep` keeps the signal ignored.
    stopping = asyncio.create_task(runtime.stop(name, 2))

    for _ in range(5):
        assert (await runtime.inspect(name)).state is ContainerState.RUNNING
    assert not stopping.done()

    await stopping
    assert (await runtime.inspect(name)).state is ContainerState.EXITED
