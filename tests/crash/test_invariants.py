"""Owns the invariants' own tests: each says nothing about a good world, and its sentence about one that is bad in one way."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tests.crash.invariants import ALWAYS, BETWEEN, SETTLED, between, bystanders, liveness, settled
from tests.crash.sabotages import SABOTAGES
from tests.crash.world import Container, Dataset, Device, Record, World

pytestmark = pytest.mark.unit

USER, OTHER = UUID(int=1, version=4), UUID(int=2, version=4)
RUNS = Record(
    id=UUID(int=11, version=4),
    slug="aaaa2222",
    status="running",
    step="serve",
    ending=None,
    gpu_id=0,
    container_id="c1",
    workspace=f"pool/{USER}/11",
    started_at="2026-01-01T00:00:00.000Z",
)
ENDED = Record(
    id=UUID(int=12, version=4),
    slug="bbbb2222",
    status="stopped",
    step="done",
    ending="requested",
    gpu_id=1,
    container_id=None,
    workspace=f"pool/{OTHER}/12",
    started_at="2026-01-01T00:00:00.000Z",
    stopped_at="2026-01-01T01:00:00.000Z",
    snapshot_ms=1767229200000,
)
CONTAINER = Container(RUNS.container_name, "c1", RUNS.id, running=True, isolated=True)
GOOD = World(
    records=(RUNS, ENDED),
    devices=(Device(0, "GPU-0", processes=(77,)), Device(1, "GPU-1")),
    containers=(CONTAINER,),
    datasets=(
        Dataset(RUNS.workspace, RUNS.id),
        Dataset(ENDED.workspace, ENDED.id, (f"stop-{ENDED.snapshot_ms}",), files=True),
    ),
)


def _record(record: Record, **values: object) -> World:
    """The good world with one record that is otherwise."""
    changed = replace(record, **values)  # type: ignore[arg-type]  # the fields' names are the test's own
    return replace(GOOD, records=tuple(changed if found.id == record.id else found for found in GOOD.records))


def _container(**values: object) -> World:
    return replace(GOOD, containers=(replace(CONTAINER, **values),))  # type: ignore[arg-type]  # as above


def _device(number: int, **values: object) -> World:
    devices = list(GOOD.devices)
    devices[number] = replace(devices[number], **values)  # type: ignore[arg-type]  # as above
    return replace(GOOD, devices=tuple(devices))


def _snapshots(*names: str) -> World:
    return replace(GOOD, datasets=(GOOD.datasets[0], replace(GOOD.datasets[1], snapshots=names)))


LEFT = Container(ENDED.container_name, "c2", ENDED.id, running=False, isolated=False)
BAD: dict[str, list[World]] = {
    "one_session_per_gpu": [_record(ENDED, status="running", gpu_id=0)],
    "everything_has_a_row": [
        replace(GOOD, records=(ENDED,)),
        replace(GOOD, strays=("port of nobody",)),
        replace(GOOD, datasets=(*GOOD.datasets, Dataset("pool/nobody", UUID(int=9, version=4)))),
        _container(name="mf-session-another"),
    ],
    "gpus_are_explained": [
        _device(1, processes=(5,)),
        _device(1, healthy=False),
        _device(1, quarantine=" ", quarantine_session_id=ENDED.id),
    ],
    "nothing_in_limbo": [_record(RUNS, status="starting"), _record(RUNS, status="stopping")],
    "what_runs_is_whole": [
        replace(GOOD, containers=()),
        _container(running=False),
        _container(id="another"),
        _record(RUNS, step="wait"),
        _record(RUNS, started_at=None),
        replace(GOOD, datasets=GOOD.datasets[1:]),
    ],
    "what_runs_is_isolated": [replace(GOOD, rules=False), _container(isolated=False)],
    "ends_are_complete": [
        _record(ENDED, stopped_at=None),
        _record(ENDED, step="snapshot"),
        _record(ENDED, status="error"),
        _record(ENDED, ending="container_death"),
    ],
    "nothing_is_left": [replace(GOOD, containers=(CONTAINER, LEFT))],
    "one_final_snapshot": [
        _snapshots(),
        _snapshots("stop-1767229200001"),
        _snapshots(*GOOD.datasets[1].snapshots, "stop-1767229200001"),
        replace(GOOD, datasets=GOOD.datasets[:1]),
    ],
    "quarantines_have_a_cause": [_device(1, quarantine="a process stays", quarantine_session_id=ENDED.id)],
}
LATER: dict[str, list[World]] = {
    "nothing_is_forgotten": [replace(GOOD, records=(RUNS,)), _record(ENDED, status="error", error_message="why")],
    "nothing_is_lost": [
        replace(GOOD, datasets=GOOD.datasets[1:]),
        replace(GOOD, datasets=GOOD.datasets[:1]),
        _snapshots(),
    ],
}


def _cases(worlds: dict[str, list[World]]) -> list[tuple[str, World]]:
    return [(name, world) for name, bad in worlds.items() for world in bad]


def test_a_good_world_is_good() -> None:
    assert settled(GOOD) == []
    assert between(GOOD, GOOD) == []
    assert bystanders(GOOD, GOOD, str(USER)) == []


def test_every_invariant_has_a_bad_world_and_a_sabotage() -> None:
    assert set(BAD) == {check.__name__ for check in (*ALWAYS, *SETTLED)}
    assert set(LATER) == {check.__name__ for check in BETWEEN}
    assert {sabotage.noticed for sabotage in SABOTAGES} == {*BAD, *LATER, "bystanders", "liveness"}


@pytest.mark.parametrize(("invariant", "world"), _cases(BAD))
def test_a_bad_world_is_noticed(invariant: str, world: World) -> None:
    assert invariant in {violation.invariant for violation in settled(world)}


@pytest.mark.parametrize(("invariant", "later"), _cases(LATER))
def test_a_loss_is_noticed(invariant: str, later: World) -> None:
    assert invariant in {violation.invariant for violation in between(GOOD, later)}


@pytest.mark.parametrize(
    "later", [_record(RUNS, status="stopping"), _container(id="another"), replace(GOOD, containers=())]
)
def test_a_bystander_that_changes_is_noticed(later: World) -> None:
    assert [violation.invariant for violation in bystanders(GOOD, later, str(USER))] == ["bystanders"]
    assert bystanders(GOOD, later, "nobody") == []


@pytest.mark.parametrize(
    "excused",
    [
        # Known before the daemon did anything.
        replace(GOOD, strays=("port of nobody",), tolerated=frozenset({"port of nobody"})),
        # What could not be removed keeps its GPU out of use.
        replace(
            _device(1, quarantine="its container stays", quarantine_session_id=ENDED.id), containers=(CONTAINER, LEFT)
        ),
        replace(
            _record(ENDED, status="error", error_message="snapshot failed: no space left"),
            datasets=GOOD.datasets[:1],
        ),
    ],
)
def test_what_is_explained_is_no_violation(excused: World) -> None:
    assert settled(excused) == []


def _created(world: World) -> World:
    made = replace(RUNS, id=UUID(int=13, version=4), slug="cccc2222", gpu_id=1)
    return replace(world, records=(*world.records, made))


def test_a_create_has_to_work_where_a_gpu_is_free() -> None:
    assert liveness(GOOD, None, _created(GOOD)) == []
    assert liveness(GOOD, "no_gpu_available", GOOD) != []
    assert liveness(GOOD, None, GOOD) != []


def test_a_create_has_to_be_refused_where_none_is_free() -> None:
    full = _device(1, enabled=False)
    assert liveness(full, "no_gpu_available", full) == []
    assert liveness(full, None, _created(full)) != []
    assert liveness(full, "create_failed", full) != []
