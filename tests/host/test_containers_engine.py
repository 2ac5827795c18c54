"""Owns the tests of what can be in the way in a real engine: networks, addresses, images, GPUs, workspaces."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from medforged.adapters.docker import DockerRuntime, GpuInjection
from medforged.domain.containers import ContainerSpec, ContainerState, NetworkSpec
from medforged.domain.errors import ContainerError
from tests.host import docker_world, tiny_image

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def network() -> Iterator[NetworkSpec]:
    with docker_world.network() as spec:
        yield spec


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    with docker_world.installation() as instance:
        runtime = docker_world.runtime(instance)
        yield runtime
        await runtime.close()


@pytest.fixture
async def spec(runtime: DockerRuntime, network: NetworkSpec, tmp_path: Path) -> ContainerSpec:
    await runtime.ensure_network(network)
    return docker_world.spec(network.name, tiny_image.ensure().reference, docker_world.workspace(tmp_path))


async def test_description_names_the_engine_once_it_has_been_met(runtime: DockerRuntime) -> None:
    version = tiny_image.docker("version", "--format", "{{.Server.Version}}")

    await runtime.ping()

    assert f"Docker {version}, API 1." in runtime.describe().reason


# The network.


async def test_network_in_the_engine_is_what_was_asked_for(runtime: DockerRuntime) -> None:
    with docker_world.network() as spec:
        await runtime.ensure_network(spec)

        made = json.loads(tiny_image.docker("network", "inspect", spec.name))[0]
        assert (made["Driver"], made["EnableIPv6"], made["Internal"]) == ("bridge", False, False)
        assert made["IPAM"]["Config"] == [
            {"Subnet": str(spec.subnet), "IPRange": str(spec.dynamic_range), "Gateway": str(spec.gateway)}
        ]
        assert made["Labels"].keys() == {"dev.medforge.instance"}
        assert Path(f"/sys/class/net/{spec.bridge}/bridge").is_dir()  # noqa: ASYNC240 - a look into sysfs


async def test_two_daemons_may_make_the_network_at_the_same_time() -> None:
    with docker_world.network() as spec, docker_world.installation() as one, docker_world.installation() as two:
        runtimes = [docker_world.runtime(name) for name in (one, two) for _ in range(3)]

        made = await asyncio.gather(*(runtime.ensure_network(spec) for runtime in runtimes), return_exceptions=True)

        assert set(made) == {await runtimes[0].network(spec.name)}
        listed = tiny_image.docker("network", "ls", "--format", "{{.Name}}").split()
        assert listed.count(spec.name) == 1
        for runtime in runtimes:
            await runtime.close()


async def test_network_that_is_in_the_way_is_named(runtime: DockerRuntime) -> None:
    with docker_world.network() as spec:
        await runtime.ensure_network(spec)

        with pytest.raises(ContainerError, match=rf"overlaps with network {spec.name} \({spec.subnet}\); remove"):
            await runtime.ensure_network(replace(spec, name=f"{spec.name}b", bridge=f"{spec.bridge}b"))


async def test_bridge_that_is_taken_is_told(runtime: DockerRuntime) -> None:
    with docker_world.network() as spec:
        await runtime.ensure_network(spec)
        other = docker_world.free_network()

        with pytest.raises(ContainerError, match="another network of the container engine uses this bridge"):
            await runtime.ensure_network(replace(other, bridge=spec.bridge))

        assert other.name not in tiny_image.docker("network", "ls", "--format", "{{.Name}}").split()


async def test_network_on_which_the_engine_drops_traffic_inside_is_refused(runtime: DockerRuntime) -> None:
    with docker_world.network() as spec:
        tiny_image.docker(
            "network", "create", "--subnet", str(spec.subnet), "--gateway", str(spec.gateway),
            "--ip-range", str(spec.dynamic_range), "--opt", f"com.docker.network.bridge.name={spec.bridge}",
            "--opt", "com.docker.network.bridge.enable_icc=false", spec.name,
        )  # fmt: skip

        with pytest.raises(ContainerError, match=r"traffic inside \(enable_icc\) is false"):
            await runtime.ensure_network(spec)


async def test_network_that_an_operator_made_as_it_has_to_be_is_used(runtime: DockerRuntime) -> None:
    with docker_world.network() as spec:
        tiny_image.docker(
            "network", "create", "--subnet", str(spec.subnet), "--gateway", str(spec.gateway),
            "--ip-range", str(spec.dynamic_range), "--opt", f"com.docker.network.bridge.name={spec.bridge}", spec.name,
        )  # fmt: skip

        assert (await runtime.ensure_network(spec)).bridge == spec.bridge


async def test_containers_of_others_are_endpoints_too(runtime: DockerRuntime, network: NetworkSpec) -> None:
    await runtime.ensure_network(network)
    name, address = f"mfct-proxy-{secrets.token_hex(3)}", str(network.subnet[2])
    tiny_image.docker(
        "run", "--detach", "--rm", "--name", name, "--network", network.name, "--ip", address, tiny_image.ensure().id
    )
    try:
        (endpoint,) = (await runtime.network(network.name)).endpoints

        assert (endpoint.container_name, str(endpoint.address)) == (name, address)
        assert endpoint.process_id == docker_world.inspected(name)["State"]["Pid"]
        tiny_image.docker("restart", "--time", "0", name)
        (again,) = (await runtime.network(network.name)).endpoints
        assert again.process_id == docker_world.inspected(name)["State"]["Pid"] != endpoint.process_id
    finally:
        tiny_image.docker("rm", "--force", name)
    assert (await runtime.network(network.name)).endpoints == ()


async def test_addresses_that_are_used_up_are_told(runtime: DockerRuntime, tmp_path: Path) -> None:
    with docker_world.network() as wide:
        few = replace(wide, dynamic_range=IPv4Network((int(wide.subnet[8]), 30)))
        await runtime.ensure_network(few)
        workspace = docker_world.workspace(tmp_path)
        specs = [docker_world.spec(few.name, tiny_image.ensure().reference, workspace) for _ in range(5)]
        for spec in specs:
            await runtime.create(spec)
        infos = await asyncio.gather(*(runtime.start(spec.name) for spec in specs[:4]))
        assert all(info.address in few.dynamic_range for info in infos)

        with pytest.raises(ContainerError, match="every address of its network is in use; stop sessions"):
            await runtime.start(specs[4].name)
        await runtime.stop(specs[0].name, 0)

        assert (await runtime.start(specs[4].name)).address == infos[0].address
        for spec in specs:
            await runtime.remove(spec.name)


# Images.


async def test_image_that_is_removed_is_noticed(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    image = tiny_image.ensure(f"LABEL unique={secrets.token_hex(8)}")
    await runtime.resolve_image(image.reference)
    tiny_image.docker("rmi", image.tag)

    with pytest.raises(ContainerError, match="has been removed from this host; pull or build it again"):
        await runtime.create(replace(spec, image=image.reference))
    with pytest.raises(ContainerError, match="is not on this host"):
        await runtime.resolve_image(image.reference)


async def test_container_is_made_from_the_digest_even_when_the_tag_has_moved(
    runtime: DockerRuntime, spec: ContainerSpec
) -> None:
    image = tiny_image.ensure()
    other = tiny_image.ensure(f"LABEL unique={secrets.token_hex(8)}")
    tag = f"medforge-test-moved:{secrets.token_hex(4)}"
    tiny_image.docker("tag", image.id, tag)
    pinned = f"{tag}@{image.id}"
    tiny_image.docker("tag", other.id, tag)
    try:
        await runtime.create(replace(spec, image=pinned))

        assert docker_world.inspected(spec.name)["Image"] == image.id
    finally:
        tiny_image.docker("rmi", tag, other.tag)


# GPUs and workspaces.


def real_gpu(spec: ContainerSpec, uuid: str) -> ContainerSpec:
    others = tuple(pair for pair in spec.environment if pair[0] != "NVIDIA_VISIBLE_DEVICES")
    return replace(spec, gpu_uuid=uuid, gpu_simulated=False, environment=(("NVIDIA_VISIBLE_DEVICES", uuid), *others))


@pytest.mark.parametrize("injection", list(GpuInjection))
async def test_gpu_that_the_engine_cannot_pass_is_an_error_with_its_remedy(
    spec: ContainerSpec, injection: GpuInjection
) -> None:
    with docker_world.installation() as instance:
        runtime = docker_world.runtime(instance, gpu_injection=injection)
        await runtime.create(real_gpu(spec, "GPU-that-does-not-exist"))

        with pytest.raises(ContainerError, match="nvidia"):
            await runtime.start(spec.name)

        assert (await runtime.inspect(spec.name)).state is ContainerState.CREATED
        await runtime.close()


async def test_gpu_is_passed_by_its_name_in_cdi(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    directories = json.loads(tiny_image.docker("info", "--format", "{{json .CDISpecDirs}}") or "null")
    if not directories:
        pytest.skip("this engine has no CDI (Docker 25 and newer have it)")
    uuid = f"GPU-{secrets.token_hex(8)}"
    edits = {"env": [f"INJECTED={uuid}"], "deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}
    device = {"name": uuid, "containerEdits": edits}
    other = {"name": "all", "containerEdits": {"env": ["INJECTED=all"]}}
    written = Path(directories[-1]) / f"medforge-test-{uuid}.json"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(
        json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [device, other], "containerEdits": {}})
    )
    try:
        await runtime.create(real_gpu(spec, uuid))
        await runtime.start(spec.name)

        # A process that is put beside the container's own does not get what CDI adds to the environment.
        variables = tiny_image.docker("exec", spec.name, "cat", "/proc/1/environ").split("\0")
        assert f"INJECTED={uuid}" in variables
        assert "nvidia0" in tiny_image.docker("exec", spec.name, "ls", "/dev").split()
        assert runtime.describe().reason.endswith("GPUs by cdi")
    finally:
        written.unlink()


async def test_workspace_that_is_not_there_is_told_and_not_made(
    runtime: DockerRuntime, spec: ContainerSpec, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"

    with pytest.raises(ContainerError, match="the workspace's directory is not on the host"):
        await runtime.create(replace(spec, workspace=absent))

    assert not absent.exists()


async def test_more_cpus_than_the_host_has(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    with pytest.raises(ContainerError, match="more CPUs than this host has; lower it"):
        await runtime.create(replace(spec, limits=replace(spec.limits, cpus=4096)))
