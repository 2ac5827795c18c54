"""The simulated host outlives a daemon that is killed, and what happens on it meanwhile is found: the real program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.gpus import SimulatedGpuDriver
from medforged.adapters.simulated.host import SimulatedHost
from medforged.client import DaemonClient
from medforged.contract.gpus import GpuHealth, ListGpus
from medforged.contract.methods import gpus_list, sessions_create, sessions_get, sessions_stop
from medforged.contract.sessions import CreateSession, Session, SessionRef, SessionStatus
from medforged.domain.containers import container_name
from tests.integration.daemon.conftest import DaemonProcess, await_socket, start_daemon

pytestmark = pytest.mark.integration


class Machine:
    """A simulated host and the daemon on it, which can be killed and started again."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.host = SimulatedHost(directory / "simulated-host")
        self.containers = SimulatedRuntime(host=self.host)
        self.gpus = SimulatedGpuDriver(host=self.host)
        self.daemon = self.start()

    def start(self) -> DaemonProcess:
        process = start_daemon(self._directory, "--simulate", str(self._directory))
        self._stack.callback(process.wait, 10)
        self._stack.callback(process.kill)
        self.daemon = DaemonProcess(process, self._directory, self._directory / "daemon.log")
        await_socket(process, self.daemon.socket, self.daemon.log)
        return self.daemon

    @asynccontextmanager
    async def client(self) -> AsyncIterator[DaemonClient]:
        async with asyncio.timeout(60), DaemonClient(self.daemon.socket) as client:
            yield client


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(tmp_path, stack)


async def ended(client: DaemonClient, session: Session) -> Session:
    """Wait for the session's end by asking."""
    while True:
        now = (await client.call(sessions_get, SessionRef(session_id=session.id))).session
        if now.status in (SessionStatus.STOPPED, SessionStatus.ERROR):
            return now


async def test_a_session_outlives_a_daemon_that_is_killed(machine: Machine) -> None:
    async with machine.client() as client:
        session = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
    before = await machine.containers.inspect(container_name(session.slug))
    machine.daemon.stop(signal.SIGKILL)
    assert await machine.containers.inspect(container_name(session.slug)) == before

    await asyncio.to_thread(machine.start)

    async with machine.client() as client:
        again = (await client.call(sessions_get, SessionRef(session_id=session.id))).session
        assert (again.status, again.container_id) == (SessionStatus.RUNNING, before.id)
        assert await machine.containers.inspect(container_name(session.slug)) == before
        await client.call(sessions_stop, SessionRef(session_id=session.id))
        assert (await ended(client, session)).status is SessionStatus.STOPPED
    assert machine.host.containers.items() == {}
    (workspace,) = machine.host.workspaces.items().values()
    assert [snapshot.name.partition("-")[0] for snapshot in workspace.snapshots] == ["stop"]


async def test_a_container_that_dies_while_the_daemon_is_away_is_found_dead(machine: Machine) -> None:
    async with machine.client() as client:
        session = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
    machine.daemon.stop(signal.SIGKILL)
    machine.containers.die(container_name(session.slug), exit_code=137, oom_killed=True)

    await asyncio.to_thread(machine.start)

    async with machine.client() as client:
        assert (await ended(client, session)).status is SessionStatus.ERROR
    (workspace,) = machine.host.workspaces.items().values()
    assert [snapshot.name.partition("-")[0] for snapshot in workspace.snapshots] == ["death"]


async def test_what_another_process_does_to_the_host_is_noticed(machine: Machine) -> None:
    async with machine.client() as client:
        session = (await client.call(sessions_create, CreateSession(user_id=uuid4()))).session
        machine.containers.die(container_name(session.slug))
        assert (await ended(client, session)).status is SessionStatus.ERROR
        lost = machine.gpus.uuids[6]
        machine.gpus.fail(lost, "the GPU fell off the bus (simulated)")
        sick: set[str] = set()
        while not sick:
            gpus = (await client.call(gpus_list, ListGpus())).gpus
            sick = {gpu.uuid for gpu in gpus if gpu.health is GpuHealth.UNHEALTHY}
        assert sick == {lost}
