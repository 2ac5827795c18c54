"""Owns what has to hold, as pure functions of what is seen from outside; each returns sentences, none when all is well.

`ALWAYS` holds at any moment, the one right after a SIGKILL included. `SETTLED` holds once a daemon has had its time.
`BETWEEN` compares an earlier moment with a later one: what was there must not be lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.crash.world import Record, World

__all__ = ["ALWAYS", "BETWEEN", "SETTLED", "Violation", "at_any_moment", "between", "bystanders", "liveness", "settled"]

_FINAL = ("stop-", "death-")


@dataclass(frozen=True, slots=True)
class Violation:
    """Which invariant does not hold, and one sentence that says how."""

    invariant: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.sentence}"


def one_session_per_gpu(world: World) -> Iterator[str]:
    """No GPU is held by two active sessions."""
    for gpu_id, holders in Counter(record.gpu_id for record in world.active).items():
        if holders > 1:
            slugs = ", ".join(record.slug for record in world.active if record.gpu_id == gpu_id)
            yield f"GPU {gpu_id} is held by {holders} active sessions: {slugs}"


def everything_has_a_row(world: World) -> Iterator[str]:
    """Every container, dataset, port and rule is explained by a record: the intent was written before the effect."""
    for name in sorted(world.strangers - world.tolerated):
        yield f"{name} belongs to no record"
    for container in world.containers:
        record = world.record(container.session_id)
        if record is not None and record.container_name != container.name:
            yield f"{container.name} carries the label of session {record.slug}, which is called otherwise"


def gpus_are_explained(world: World) -> Iterator[str]:
    """A GPU with a process on it is held, or out of use; and what is out of use says why."""
    held = {record.gpu_id for record in world.active}
    for device in world.devices:
        if device.processes and device.id not in held and device.quarantine is None and device.healthy:
            yield f"GPU {device.id} counts as free, and processes {list(device.processes)} are on it"
        if not device.healthy and not device.reason:
            yield f"GPU {device.id} is unhealthy without a reason"
        if device.quarantine is not None and not device.quarantine.strip():
            yield f"GPU {device.id} is in quarantine without a reason"


def nothing_in_limbo(world: World) -> Iterator[str]:
    """Every session has arrived: it serves, or it has ended."""
    for record in world.active:
        if record.status != "running":
            yield f"{record.slug} is still {record.status} at step {record.step}"


def what_runs_is_whole(world: World) -> Iterator[str]:
    """A running session has its container, running under the recorded id, and its workspace."""
    for record in world.active:
        if record.status != "running":
            continue
        container = world.container(record.container_name)
        if container is None:
            yield f"{record.slug} is running, and has no container"
        elif not container.running:
            yield f"{record.slug} is running, and its container is not"
        elif container.id != record.container_id or container.session_id != record.id:
            yield f"{record.slug} is running with another container than the recorded one"
        if record.started_at is None or record.step != "serve":
            yield f"{record.slug} is running at step {record.step}, started at {record.started_at}"
        dataset = world.dataset(record.workspace)
        if dataset is None or not dataset.mounted:
            yield f"{record.slug} is running, and its workspace is not {'there' if dataset is None else 'mounted'}"


def what_runs_is_isolated(world: World) -> Iterator[str]:
    """The rules are in place, and every running container's port is kept apart."""
    if not world.rules:
        yield "there are no rules that keep sessions apart"
    for container in world.containers:
        if container.running and not container.isolated:
            yield f"{container.name} runs, and its port is not isolated"


def ends_are_complete(world: World) -> Iterator[str]:
    """An ended session says when, and an error says why; `stopped` is only what was asked to stop."""
    for record in world.records:
        if record.active:
            continue
        if record.stopped_at is None or record.step != "done":
            yield f"{record.slug} is {record.status} at step {record.step}, stopped at {record.stopped_at}"
        if record.status == "error" and not record.error_message:
            yield f"{record.slug} is in error and does not say why"
        if record.status == "stopped" and record.ending != "requested":
            yield f"{record.slug} is stopped, and its end began because of {record.ending}"


def nothing_is_left(world: World) -> Iterator[str]:
    """No container is left of an ended session, unless its GPU is in quarantine for that."""
    quarantined = {device.quarantine_session_id for device in world.devices if device.quarantine is not None}
    for container in world.containers:
        record = world.record(container.session_id)
        if record is not None and not record.active and record.id not in quarantined:
            yield f"{container.name} is left of session {record.slug}, which is {record.status}"


def one_final_snapshot(world: World) -> Iterator[str]:
    """A session that ran and ended has one final snapshot, under the recorded name, or says that it failed."""
    for record in world.records:
        if record.active or record.started_at is None:
            continue
        dataset = world.dataset(record.workspace)
        final = [name for name in (dataset.snapshots if dataset else ()) if name.startswith(_FINAL)]
        if not final and "snapshot failed" in (record.error_message or ""):
            continue
        if len(final) != 1 or final[0] not in _names(record):
            yield f"{record.slug} has the final snapshots {final}, and has to have one of {_names(record)}"


def quarantines_have_a_cause(world: World) -> Iterator[str]:
    """A GPU is kept in quarantine only while something is left that keeps it there."""
    for device in world.devices:
        if device.quarantine is None:
            continue
        if device.processes or any(found.session_id == device.quarantine_session_id for found in world.containers):
            continue
        yield f"GPU {device.id} stays in quarantine ({device.quarantine}), and nothing is on it"


def nothing_is_forgotten(earlier: World, later: World) -> Iterator[str]:
    """No row disappears, and what has ended never changes again."""
    for record in earlier.records:
        now = later.record(record.id)
        if now is None:
            yield f"the record of {record.slug} is gone"
        elif not record.active and now != record:
            yield f"{record.slug} had ended as {record}, and is now {now}"


def nothing_is_lost(earlier: World, later: World) -> Iterator[str]:
    """No snapshot disappears, nor the workspace of a session that ever ran, nor files that nobody explains."""
    for dataset in earlier.datasets:
        record = earlier.record(dataset.session_id) or later.record(dataset.session_id)
        now = later.dataset(dataset.name)
        if now is None:
            ran = record is not None and record.started_at is not None
            if dataset.snapshots or ran or (record is None and dataset.files):
                yield f"the workspace {dataset.name} is gone, with the snapshots {list(dataset.snapshots)}"
        elif gone := [name for name in dataset.snapshots if name not in now.snapshots]:
            yield f"the workspace {dataset.name} has lost the snapshots {gone}"


ALWAYS: tuple[Callable[[World], Iterator[str]], ...] = (one_session_per_gpu, everything_has_a_row, gpus_are_explained)
SETTLED: tuple[Callable[[World], Iterator[str]], ...] = (
    nothing_in_limbo,
    what_runs_is_whole,
    what_runs_is_isolated,
    ends_are_complete,
    nothing_is_left,
    one_final_snapshot,
    quarantines_have_a_cause,
)
BETWEEN: tuple[Callable[[World, World], Iterator[str]], ...] = (nothing_is_forgotten, nothing_is_lost)


def at_any_moment(world: World) -> list[Violation]:
    return [Violation(check.__name__, told) for check in ALWAYS for told in check(world)]


def settled(world: World) -> list[Violation]:
    """Everything that holds once a daemon has had its time."""
    return at_any_moment(world) + [Violation(check.__name__, told) for check in SETTLED for told in check(world)]


def between(earlier: World, later: World) -> list[Violation]:
    return [Violation(check.__name__, told) for check in BETWEEN for told in check(earlier, later)]


def bystanders(earlier: World, later: World, user: str) -> list[Violation]:
    """Active sessions of a user whom nothing concerns are what they were: the same records, the same containers."""
    return [
        Violation("bystanders", f"{before.slug} was {before}, and is now {now}; or its container is another")
        for before in earlier.records
        if before.active
        and user in before.workspace
        and ((now := later.record(before.id)) != before or not _same_container(earlier, later, before))
    ]


def liveness(before: World, refusal: str | None, after: World) -> list[Violation]:
    """A create works when a GPU is free, and is refused for that reason when none is. `refusal` is its error code."""
    held = {record.gpu_id for record in before.active}
    free = [device.id for device in before.devices if device.usable and device.id not in held]
    wanted = None if free else "no_gpu_available"
    if refusal != wanted:
        return [Violation("liveness", f"with GPUs {free} free, a create ended with {refusal or 'success'}")]
    expected = len(before.active) + (refusal is None)
    if len(after.active) != expected:
        return [Violation("liveness", f"after a create, {len(after.active)} sessions are active, not {expected}")]
    return []


def _names(record: Record) -> list[str]:
    """The names that the session's final snapshot may have: what became of the stop later does not rename it."""
    kinds = {"container_death": ("death",), "stop_failed": ("stop", "death")}.get(record.ending or "", ("stop",))
    return [f"{kind}-{record.snapshot_ms}" for kind in kinds]


def _same_container(earlier: World, later: World, record: Record) -> bool:
    was, now = earlier.container(record.container_name), later.container(record.container_name)
    return was is not None and now is not None and (was.id, was.running) == (now.id, now.running)
