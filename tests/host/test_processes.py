"""Owns the tests of attributing real processes to real containers."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from medforged.adapters.procfs import ProcfsProcessTable
from tests.host import docker_world, tiny_image

pytestmark = pytest.mark.host

# A child whose end nobody waits for: exec leaves it to a program that does not.
WITH_ZOMBIE = "sleep 600 & sleep 0.01 & exec sleep 600"


@pytest.fixture(scope="module")
def instance() -> Iterator[str]:
    with docker_world.installation() as instance:
        yield instance


def started(instance: str, program: str = "exec sleep 600") -> tuple[str, int]:
    """The id of a new container, and its first process as the host counts."""
    label = f"dev.medforge.instance={instance}"
    tag = tiny_image.ensure().tag
    container = tiny_image.docker(
        "run", "--detach", "--label", label, "--network", "none", "--env", f"TINY={program}", tag
    )
    return container, int(tiny_image.docker("inspect", "--format", "{{.State.Pid}}", container))


def children(process_id: int) -> dict[int, str]:
    """The state of each child (proc(5): S, Z, …) of a process by its id."""
    found = {}
    for each in Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="ascii").split():
        found[int(each)] = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    return found


@contextlib.contextmanager
def ordinary_process() -> Iterator[int]:
    """A process of the host in some control group, as systemd has all of them; without it we make the group."""
    program = subprocess.Popen(["sleep", "600"])
    made = None
    try:
        lines = [line.split(":", 2) for line in Path(f"/proc/{program.pid}/cgroup").read_text("utf-8").splitlines()]
        if all(path == "/" for _, _, path in lines):
            mounted = Path("/sys/fs/cgroup/pids") if len(lines) > 1 else Path("/sys/fs/cgroup")
            made = mounted / f"medforge-test-{program.pid}"
            made.mkdir()
            (made / "cgroup.procs").write_text(str(program.pid))
        yield program.pid
    finally:
        program.kill()
        program.wait()
        if made is not None:
            made.rmdir()


async def test_processes_are_attributed_to_their_containers(instance: str) -> None:
    table = ProcfsProcessTable()
    one, first = started(instance)
    other, second = started(instance)

    with ordinary_process() as host:
        assert await table.of_container([first, second, host], one) == (first,)
        assert await table.of_container([first, second, host], other) == (second,)
        assert await table.of_container([first, second, host], "0" * 64) == ()
    assert await table.of_container([host], one) == (host,)  # dead


async def test_children_and_zombies_of_a_container_are_its_own(instance: str) -> None:
    container, first = started(instance, WITH_ZOMBIE)

    async def zombie() -> bool:
        return sorted(children(first).values()) == ["S", "Z"]

    await docker_world.until(zombie)
    found = children(first)

    assert await ProcfsProcessTable().of_container([first, *found], container) == tuple(sorted({first, *found}))


async def test_processes_of_a_removed_container_count_as_its_own(instance: str) -> None:
    container, first = started(instance)
    tiny_image.docker("rm", "--force", container)

    assert await ProcfsProcessTable().of_container([first], container) == (first,)


def test_a_process_in_a_container_is_not_in_the_hosts_namespace(instance: str) -> None:
    """The numbers that tell the table whether it sees the host are the host's, and a container's are others."""
    _, first = started(instance)

    ours, its = (Path(f"/proc/{each}/ns/pid").readlink() for each in ("self", first))
    assert str(ours) == "pid:[4026531836]"
    assert its != ours
