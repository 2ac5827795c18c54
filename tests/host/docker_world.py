"""Owns what host tests need around real containers: a network of their own, an installation of their own, and an end to both.

Everything is named at random and found again by label or name, so that several runs can share one engine. Networks
are /24s of 172.28.16.0/20.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from medforged.adapters.docker import DockerRuntime
from medforged.domain.containers import ContainerLimits, ContainerSpec, NetworkSpec, container_name
from tests.host.tiny_image import docker, engine_socket

SUBNETS = tuple(IPv4Network("172.28.16.0/20").subnets(new_prefix=24))
LIMITS = ContainerLimits(memory_bytes=64 << 20, shm_bytes=16 << 20, cpus=0.5, pids=64)
GPU = "GPU-simulated"


def new_slug() -> str:
    """A slug that no other test has: eight characters of the alphabet of real ones."""
    return "ct" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(6))


def free_network() -> NetworkSpec:
    """A network that does not exist, on a subnet that no network of the engine and no route of the host has."""
    taken = list[IPv4Network]()
    for identity in docker("network", "ls", "--quiet").split():
        with contextlib.suppress(RuntimeError):  # others remove theirs meanwhile
            ranges = json.loads(docker("network", "inspect", identity))[0]["IPAM"]["Config"] or ()
            taken += [IPv4Network(entry["Subnet"]) for entry in ranges if "." in entry["Subnet"]]
    routes = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    destinations = {bytes.fromhex(line.split()[1])[::-1] for line in routes}
    free = [
        subnet
        for subnet in SUBNETS
        if subnet.network_address.packed not in destinations and not any(subnet.overlaps(other) for other in taken)
    ]
    subnet = secrets.choice(free)
    word = secrets.token_hex(3)
    dynamic_range = list(subnet.subnets(prefixlen_diff=1))[1]
    return NetworkSpec(f"mfct-{word}", subnet, subnet[1], dynamic_range, f"mfct{word}")


@contextlib.contextmanager
def network() -> Iterator[NetworkSpec]:
    """A network to be made by the test, and removed whatever became of it."""
    spec = free_network()
    try:
        yield spec
    finally:
        if spec.name in docker("network", "ls", "--format", "{{.Name}}").split():
            for container in json.loads(docker("network", "inspect", spec.name))[0]["Containers"]:
                with contextlib.suppress(RuntimeError):
                    docker("rm", "--force", "--volumes", container)
            docker("network", "rm", spec.name)


@contextlib.contextmanager
def installation() -> Iterator[str]:
    """The name of an installation whose containers are removed at the end."""
    instance = f"mfct-{secrets.token_hex(3)}"
    try:
        yield instance
    finally:
        label = f"label=dev.medforge.instance={instance}"
        left = docker("ps", "--all", "--quiet", "--filter", label).split()
        if left:
            docker("rm", "--force", "--volumes", *left)


def runtime(instance: str, **options: Any) -> DockerRuntime:
    """The adapter, on the engine under test."""
    return DockerRuntime(instance=instance, socket=engine_socket(), **options)


def workspace(directory: Path) -> Path:
    """A directory that belongs to the user of sessions and that the engine can reach."""
    os.chown(directory, 1000, 1000)
    for parent in (directory, *directory.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)  # pytest's directories are closed to others
    return directory


def spec(
    network_name: str,
    image: str,
    workspace_path: Path,
    *,
    slug: str | None = None,
    session_id: UUID | None = None,
    program: str | None = None,
    environment: tuple[tuple[str, str], ...] = (),
    limits: ContainerLimits = LIMITS,
) -> ContainerSpec:
    """A container that runs `program`, a shell script, or else serves HTTP."""
    slug = slug or new_slug()
    return ContainerSpec(
        name=container_name(slug),
        session_id=session_id or uuid4(),
        slug=slug,
        image=image,
        network=network_name,
        workspace=workspace_path,
        gpu_uuid=GPU,
        gpu_simulated=True,
        environment=(
            ("NVIDIA_VISIBLE_DEVICES", GPU),
            *environment,
            *((("TINY", program),) if program is not None else ()),
        ),
        limits=limits,
    )


def inspected(name: str) -> dict[str, Any]:
    """What the engine's own command says about a container."""
    answer: dict[str, Any] = json.loads(docker("inspect", "--type", "container", name))[0]
    return answer


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 20.0) -> None:
    """Wait for a condition. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is the engine's, and sets no event of ours
            await asyncio.sleep(0.02)
