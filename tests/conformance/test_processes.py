"""What every ProcessTable does: the fake, and procfs over a /proc that a test wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import pytest

from medforged.adapters.procfs import ProcfsProcessTable
from medforged.ports.processes import ProcessTable
from tests.fakes.processes import FakeProcessTable
from tests.fixtures.procfs import ScriptedProc

pytestmark = pytest.mark.unit

ONE, OTHER = "1a" * 32, "2b" * 32


class Host(Protocol):
    """A table, and the processes in it."""

    table: ProcessTable

    def runs(self, process_id: int, container_id: str | None) -> None: ...
    def ends(self, process_id: int) -> None: ...


class FakeHost:
    def __init__(self) -> None:
        self.table = FakeProcessTable()

    def runs(self, process_id: int, container_id: str | None) -> None:
        self.table.containers[process_id] = container_id

    def ends(self, process_id: int) -> None:
        del self.table.containers[process_id]


class ProcfsHost:
    def __init__(self, root: Path) -> None:
        self._proc = ScriptedProc(root)
        self.table = ProcfsProcessTable(root)

    def runs(self, process_id: int, container_id: str | None) -> None:
        self._proc.runs(process_id, f"/system.slice/docker-{container_id}.scope" if container_id else "/init.scope")

    def ends(self, process_id: int) -> None:
        self._proc.ends(process_id)


@pytest.fixture(params=["fake", "procfs"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    made: Host = FakeHost() if request.param == "fake" else ProcfsHost(tmp_path / "proc")
    made.runs(901, ONE)
    made.runs(17, ONE)
    made.runs(300, OTHER)
    made.runs(1, None)
    return made


async def test_a_containers_processes_are_its_own_in_ascending_order(host: Host) -> None:
    assert await host.table.of_container([901, 300, 17, 1], ONE) == (17, 901)
    assert await host.table.of_container([901, 300, 17, 1], OTHER) == (300,)


async def test_what_is_asked_for_twice_is_told_once(host: Host) -> None:
    assert await host.table.of_container([17, 17], ONE) == (17,)


async def test_only_what_is_asked_for_is_told(host: Host) -> None:
    assert await host.table.of_container([17], ONE) == (17,)
    assert await host.table.of_container([], ONE) == ()


async def test_processes_of_the_host_and_of_others_are_not_a_containers(host: Host) -> None:
    assert await host.table.of_container([1, 300], ONE) == ()


async def test_a_process_that_is_gone_counts(host: Host) -> None:
    assert await host.table.of_container([300, 4242], ONE) == (4242,)
    host.ends(300)
    assert await host.table.of_container([300], ONE) == (300,)


async def test_without_a_containers_id_all_count(host: Host) -> None:
    assert await host.table.of_container([901, 300, 1, 4242], None) == (1, 300, 901, 4242)


async def test_a_container_without_processes_has_none_of_the_others(host: Host) -> None:
    assert await host.table.of_container([901, 300, 17, 1], "3c" * 32) == ()


async def test_many_may_ask_at_the_same_time(host: Host) -> None:
    asked = await asyncio.gather(*(host.table.of_container([901, 300, 17, 1], each) for each in [ONE, OTHER] * 10))

    assert asked == [(17, 901), (300,)] * 10
