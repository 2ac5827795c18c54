"""Owns the simulated testbed: its files and the daemon's database, seen and changed from outside."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.host import SimulatedHost
from medforged.adapters.simulated.isolation import SimulatedIsolation
from medforged.adapters.simulated.items import ContainerItem, IsolationItem, WorkspaceItem
from medforged.config import Network, Settings, simulated
from medforged.domain.containers import ContainerState
from medforged.domain.isolation import Stray, StrayKind
from tests.crash.testbed import HOST, gpu_processes
from tests.crash.world import NOBODY, Container, Dataset, World, read_devices, read_records, rows

__all__ = ["SimulatedTestbed", "look", "signature"]

_WORKSPACES = "simulated/medforge/workspaces"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?")
_SNAPSHOT = re.compile(r"(stop|death)-\d{13}")
_IDENTITY = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_PROCESS = re.compile(r"\b\d{7,}\b")
T = TypeVar("T", bound=msgspec.Struct)


class SimulatedTestbed:
    """A directory. What is in it can be copied, and is the whole host then."""

    pace = 20.0
    patience_seconds = 10.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = simulated(Settings(), directory)
        self._host = SimulatedHost(directory / HOST)

    def look(self) -> World:
        return look(self.directory)

    def describe(self) -> str:
        return signature(self.directory)

    def clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill_container(self, name: str) -> None:
        self._engine.die(name, exit_code=1)

    def remove_container(self, name: str) -> None:
        self._engine.vanish(name)

    def restart_engine(self) -> None:
        self._engine.restart_engine()

    async def litter(self) -> None:
        spare = ContainerItem(name="mf-session-nobodys2", id="ab" * 32, state=ContainerState.EXITED, session_id=NOBODY)
        self._host.containers.put(spare.name, spare)
        for number, files in ((7, 0), (8, 3)):
            item = WorkspaceItem(user_id=NOBODY, session_id=UUID(int=number, version=4), files=files)
            self._host.workspaces.put(f"{item.user_id}_{item.session_id}", item)
        for kind in StrayKind:
            stray = Stray(kind, f"stray-{kind.value}", "nothing explains it")
            SimulatedIsolation(host=self._host).add_stray(self.settings.network.name, stray)

    @property
    def _engine(self) -> SimulatedRuntime:
        return SimulatedRuntime(host=self._host)


def look(directory: Path) -> World:
    """Everything at this moment. No file is changed by looking."""
    containers = _items(directory, "containers", ContainerItem)
    isolation = _items(directory, "isolation", IsolationItem)
    rules = isolation.get(Network().name)
    covered = set(rules.covered or ()) if rules else set()
    return World(
        records=read_records(directory),
        devices=read_devices(directory, _processes(directory, containers)),
        containers=tuple(
            Container(
                name=item.name,
                id=item.id,
                session_id=item.session_id,
                running=item.state is ContainerState.RUNNING,
                isolated=item.name in covered,
            )
            for item in containers.values()
        ),
        datasets=tuple(
            Dataset(
                name=f"{_WORKSPACES}/{item.user_id}/{item.session_id}",
                session_id=item.session_id,
                snapshots=tuple(snapshot.name for snapshot in item.snapshots),
                files=item.files > 0,
            )
            for item in _items(directory, "workspaces", WorkspaceItem).values()
        ),
        rules=rules is not None and rules.covered is not None,
        strays=tuple(stray.name for item in isolation.values() for stray in item.strays),
    )


def signature(directory: Path) -> str:
    """The same text for states that differ in nothing but random names, process ids and times.

    It is made from all that is kept, so that a new column or a new kind of file makes a difference by itself. Of times
    it keeps whether they are there, and of a snapshot whether the record names it. An address is any address, and the
    port of a container that does not run is gone with it, whatever the simulation remembers.
    """
    sessions = rows(directory, "sessions", "created_at")
    names: dict[str, str] = {}
    for number, row in enumerate(sessions):
        for column in ("id", "user_id", "slug", "container_id"):
            if row[column]:
                names.setdefault(row[column], f"<{column} {number}>")
        row.pop("revision")
    named = {f"{kind}-{record.snapshot_ms}" for record in read_records(directory) for kind in ("stop", "death")}
    kept: dict[str, Any] = {
        "sessions": sessions,
        "gpus": rows(directory, "gpus", "id"),
        "host": {
            str(path.relative_to(directory)): json.loads(path.read_bytes())
            for path in sorted((directory / HOST).rglob("*.json"))
        },
    }
    running = {container.name for container in look(directory).containers if container.running}
    for item in kept["host"].values():
        if "covered" in item:
            item["covered"] = item["covered"] and [name for name in item["covered"] if name in running]
        if "address" in item:
            item["address"] = item["address"] and "<address>"
    others: dict[str, str] = {}
    text = json.dumps(_renamed(kept, names, named), sort_keys=True, indent=1)
    return _IDENTITY.sub(lambda found: others.setdefault(found[0], f"<other {len(others)}>"), text)


def _renamed(value: Any, names: Mapping[str, str], snapshots: set[str]) -> Any:
    if isinstance(value, dict):
        return {_text(key, names, snapshots): _renamed(item, names, snapshots) for key, item in value.items()}
    if isinstance(value, list):
        # A set's order is that of random names.
        renamed = [_renamed(item, names, snapshots) for item in value]
        return sorted(renamed) if all(isinstance(item, str) for item in renamed) else renamed
    if isinstance(value, str):
        return _text(value, names, snapshots)
    # Process ids of simulated containers are beyond those of real ones.
    return "<process>" if isinstance(value, int) and value > 1 << 22 and value < 1 << 31 else value


def _text(text: str, names: Mapping[str, str], snapshots: set[str]) -> str:
    for name, word in names.items():
        text = text.replace(name, word)
    text = _SNAPSHOT.sub(lambda found: f"{found[1]}-<{'recorded' if found[0] in snapshots else 'another'}>", text)
    text = _TIME.sub("<time>", text)
    return _PROCESS.sub("<process>", text)


def _processes(directory: Path, containers: Mapping[str, ContainerItem]) -> dict[str, tuple[int, ...]]:
    shown = {uuid: list(processes) for uuid, processes in gpu_processes(directory).items()}
    for container in containers.values():
        if container.state is ContainerState.RUNNING and container.process_id is not None:
            shown.setdefault(container.gpu_uuid, []).append(container.process_id)
    return {uuid: tuple(sorted(processes)) for uuid, processes in shown.items()}


def _items(directory: Path, noun: str, kind: type[T]) -> dict[str, T]:
    found = {}
    for path in sorted((directory / HOST / noun).glob("*.json")):
        try:
            found[path.stem] = msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            continue  # since it was listed: the daemon may be at work
    return found
