"""Owns bringing trouble about on a site, and ending it: each says so to the reference, which excuses what follows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from uuid import UUID, uuid4

from medforged.adapters.simulated.items import ContainerItem, WorkspaceItem
from medforged.domain.containers import ContainerState, container_name
from medforged.domain.errors import ContainerError, ContainerUnavailable
from medforged.domain.isolation import Stray, StrayKind
from medforged.domain.orphans import OrphanKind
from medforged.domain.sessions import new_slug
from medforged.domain.workspaces import WorkspaceKey
from tests.crash.world import Record
from tests.integration.services.rig import NETWORK
from tests.model.parts import StateTrouble
from tests.model.play import Play, pick
from tests.model.reference import Reference, Trouble
from tests.model.site import Site

__all__ = ["LASTING", "Troubles"]

# Beyond every process id of a simulated container.
_FIRST_PROCESS = 1 << 31

Change = Callable[[Site], None]
# What can last, how it begins and how it ends.
LASTING: Mapping[str, tuple[Trouble, Change, Change]] = MappingProxyType(
    {
        "outage": (
            Trouble.ENGINE,
            lambda site: site.containers.begin_outage(),
            lambda site: site.containers.end_outage(),
        ),
        "disk full": (
            Trouble.DISK,
            lambda site: setattr(site.disk, "full", True),
            lambda site: setattr(site.disk, "full", False),
        ),
        "database full": (
            Trouble.STATE,
            lambda site: setattr(site.state_faults, "trouble", StateTrouble.FULL),
            lambda site: setattr(site.state_faults, "trouble", StateTrouble.NONE),
        ),
        "database locked": (
            Trouble.STATE,
            lambda site: setattr(site.state_faults, "trouble", StateTrouble.LOCKED),
            lambda site: setattr(site.state_faults, "trouble", StateTrouble.NONE),
        ),
        "filter fails": (
            Trouble.FILTER,
            lambda site: site.isolation.fail("iptables does not answer"),
            lambda site: site.isolation.restore(),
        ),
        "leak": (
            Trouble.LEAK,
            lambda site: site.isolation.leak("sessions reach each other"),
            lambda site: site.isolation.restore(),
        ),
        "driver fails": (
            Trouble.DRIVER,
            lambda site: site.gpus.fail_driver(),
            lambda site: site.gpus.restore_driver(),
        ),
    }
)


class Troubles:
    """Of one play."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._site = play.site
        self._reference: Reference = play.reference
        self.lasting: list[str] = []
        self.hangs: list[tuple[UUID, Callable[[], None]]] = []
        self._processes = _FIRST_PROCESS

    # What lasts until it is ended.

    def begin(self, name: str) -> None:
        trouble, change, _ = LASTING[name]
        self._play.begin(trouble)
        if trouble is Trouble.FILTER:
            self._reference.exempt = {record.id for record in self._play.world.active if record.status == "starting"}
        change(self._site)
        self.lasting.append(name)

    def end(self, name: str) -> None:
        trouble, _, change = LASTING[name]
        self.lasting.remove(name)
        change(self._site)
        if all(LASTING[other][0] is not trouble for other in self.lasting):
            self._play.end(trouble)

    def may_begin(self, name: str) -> bool:
        """Two at a time are enough, and no two of a kind; failing and leaking are ended by the same word."""
        kinds = {LASTING[other][0] for other in self.lasting}
        alike = {Trouble.FILTER, Trouble.LEAK}
        kind = LASTING[name][0]
        return len(kinds) < 2 and kind not in kinds and not (kind in alike and kinds & alike)

    # What happens a few times, to whatever comes next.

    @contextlib.contextmanager
    def engine_fails(self, operation: str, times: int, *, gone: bool) -> Iterator[None]:
        self._play.begin(Trouble.ENGINE)
        error = ContainerUnavailable if gone else ContainerError
        self._site.containers.fail(operation, "the engine is busy", times=times, error=error)
        yield
        self._site.containers._failures.clear()
        self._over(Trouble.ENGINE)

    @contextlib.contextmanager
    def answers_get_lost(self, times: int) -> Iterator[None]:
        self._play.begin(Trouble.LOST)
        self._site.state_faults.after = times
        yield
        self._site.state_faults.after = 0
        self._over(Trouble.LOST)

    @contextlib.contextmanager
    def writes_are_refused(self, times: int) -> Iterator[None]:
        self._play.begin(Trouble.STATE)
        self._site.state_faults.before = times
        yield
        self._site.state_faults.before = 0
        self._over(Trouble.STATE)

    @contextlib.contextmanager
    def storage_loses_answers(self, times: int) -> Iterator[None]:
        self._play.begin(Trouble.DISK)
        self._site.disk.losing = times
        yield
        self._site.disk.losing = 0
        self._over(Trouble.DISK)

    @contextlib.contextmanager
    def ides_do_not_answer(self, times: int) -> Iterator[None]:
        self._play.begin(Trouble.IDE)
        self._site.readiness.fail(times)
        yield
        self._site.readiness._failures = 0
        self._over(Trouble.IDE)

    def _over(self, trouble: Trouble) -> None:
        if all(LASTING[other][0] is not trouble for other in self.lasting):
            self._play.end(trouble)

    # What happens to isolation and is to be repaired at once.

    def flush(self) -> None:
        self._site.isolation.lose(NETWORK.name)

    def lose_network(self) -> None:
        self._site.host.networks.remove(NETWORK.name)
        self._play.hindered = True
        self._play.unsettled.add(Trouble.FILTER)
        # Over at once, but not for whoever is on the way, or comes before it has been made again.
        self._play.reference.lately.add(Trouble.FILTER)

    # Calls that hang.

    def hang(self, record: Record, operation: str) -> None:
        """Calls about one session do not return until `release`."""
        name, key = record.container_name, self._key(record)
        if operation in ("snapshot", "exists", "discard", "workspace"):
            held = self._site.workspaces.hang("create" if operation == "workspace" else operation, key)
        else:
            held = self._site.containers.hang(operation, name)
        self._reference.stuck.add(record.id)
        self._reference.learn(self._play.world)
        self.hangs.append((record.id, held.release))

    def release(self, number: int) -> None:
        session, release = self.hangs.pop(number % len(self.hangs))
        self._play.look()
        release()
        if all(other != session for other, _ in self.hangs):
            self._reference.stuck.discard(session)
        self._play.hindered = True

    # GPUs.

    def break_gpu(self, number: int, *, lasting: bool) -> None:
        uuid = pick(self._site.gpus.uuids, number)
        self._site.gpus.fail(
            uuid, "the GPU fell off the bus" if lasting else "Xid 94: contained error", lasting=lasting
        )
        self._reference.broken.add(uuid)
        self._play.hindered = True

    def mend_gpu(self, number: int) -> None:
        uuid = pick(sorted(self._reference.broken), number)
        self._site.gpus.restore(uuid)
        self._play.look()
        self._reference.broken.discard(uuid)
        self._play.hindered = True

    def recheck(self, number: int) -> None:
        """An operator says that a GPU was repaired: what it reported in the past is forgotten."""
        device = pick(self._play.world.devices, number)
        self._site.loop.complete(self._site.services.watch.recheck(device.id), within=30)
        item = self._site.host.gpus.get(device.uuid)
        self._play.look()
        if item is not None and item.fault is None:
            self._reference.broken.discard(device.uuid)

    def switch(self, number: int, *, enabled: bool) -> None:
        device = pick(self._play.world.devices, number)
        self._site.loop.complete(self._site.services.watch.enable(device.id, enabled=enabled), within=30)
        (self._reference.disabled.discard if enabled else self._reference.disabled.add)(device.uuid)

    def linger(self, record: Record) -> None:
        """A process of a session stays on its GPU, whatever becomes of the session."""
        uuid = next(device.uuid for device in self._play.world.devices if device.id == record.gpu_id)
        self._processes += 1
        self._site.processes.containers[self._processes] = record.container_id
        self._site.gpus.linger(uuid, self._processes)
        self._reference.lingering.setdefault(uuid, {})[self._processes] = record.id

    def leave(self, number: int) -> None:
        """The processes that stayed on one GPU end."""
        uuid = pick(sorted(self._reference.lingering), number)
        self._site.gpus.set_processes(uuid, ())
        del self._reference.lingering[uuid]
        self._play.hindered = True

    # Orphans.

    def orphan_container(self, *, running: bool) -> None:
        name = container_name(new_slug())
        item = ContainerItem(name=name, id=uuid4().hex * 2, session_id=uuid4(), state=ContainerState.EXITED)
        if running:
            address = f"10.9.0.{64 + len(self._site.host.containers.items()) % 32}"
            item = ContainerItem(
                name=name,
                id=item.id,
                session_id=item.session_id,
                state=ContainerState.RUNNING,
                network=NETWORK.name,
                address=address,
                process_id=self._processes,
            )
        self._appears(name, lambda: self._site.host.containers.put(name, item))

    def orphan_workspace(self, files: int) -> None:
        item = WorkspaceItem(user_id=uuid4(), session_id=uuid4(), files=files)
        name = f"{item.user_id}_{item.session_id}"
        dataset = f"{self._site.workspaces.root}/{item.user_id}/{item.session_id}"
        self._appears(dataset, lambda: self._site.host.workspaces.put(name, item))

    def stray_port(self) -> None:
        name = f"veth{uuid4().hex[:8]}"
        stray = Stray(StrayKind.PORT, name, "it leads to no container")
        self._appears(name, lambda: self._site.isolation.add_stray(NETWORK.name, stray))

    def _appears(self, name: str, change: Callable[[], None]) -> None:
        self._reference.orphans.add(name)
        change()

    def remove_orphans(self) -> None:
        """An operator says so: all go but what has somebody's files in it."""
        found, problems = self._site.loop.complete(self._site.services.orphans.remove(), within=60)
        expected = set(self._reference.orphans)
        self._reference.orphans -= {orphan.name for orphan in found if orphan.removed}
        if not self._play.calm:
            return
        self._play.require(not problems, "orphans_are_removed", f"it was not possible to look: {problems}")
        names = {orphan.name for orphan in found}
        self._play.require(names == expected, "orphans_are_removed", f"found {names}, and {expected} are there")
        for orphan in found:
            files = orphan.kind is OrphanKind.DATASET and any(
                dataset.name == orphan.name and dataset.files for dataset in self._play.world.datasets
            )
            self._play.require(
                orphan.removed is not files, "orphans_are_removed", f"{orphan} has {'files' if files else 'no files'}"
            )

    def _key(self, record: Record) -> WorkspaceKey:
        key = WorkspaceKey.parse(record.workspace.removeprefix(f"{self._site.workspaces.root}/"))
        assert key is not None
        return key
