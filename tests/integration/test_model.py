"""Random stories of a host and its daemon, held against a small model; and that the model notices broken services."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.model.outcome import Outcome, share
from tests.model.sabotages import SABOTAGES, Sabotage

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1200),
    # A daemon that is killed leaves the connections that it had; the garbage collector closes them for the kernel.
    pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning"),
]

_STEPS = 10_000
# The same story every time, so that a failure is of the change that is tested. Others are told by MEDFORGE_MODEL_SEED.
_SEED = 20261125
_PROCESSES = 2
# With the seed below the slowest to be noticed takes about 500.
_STEPS_UNTIL_NOTICED = 1500
# Runs of one share take the seeds after its own.
_SEEDS_APART = 1_000_000


def test_whatever_happens_what_is_promised_holds() -> None:
    steps = int(os.environ.get("MEDFORGE_MODEL_STEPS", _STEPS))
    seed = int(os.environ.get("MEDFORGE_MODEL_SEED", _SEED))
    print(f"MEDFORGE_MODEL_STEPS={steps} MEDFORGE_MODEL_SEED={seed}")

    began = time.perf_counter()
    outcomes = _shared_out(steps, seed)
    took = time.perf_counter() - began

    done = sum(outcome.done for outcome in outcomes)
    print(f"{done} steps in {took:.0f} s, over {sum(each.seconds for each in outcomes) / 3600:.1f} h on the hosts")
    for outcome in outcomes:
        print(f"{outcome.done} steps {dict(outcome.steps)}, ends {dict(outcome.ends)}, longest {outcome.longest}")
    for outcome in outcomes:
        assert outcome.violated is None, f"with MEDFORGE_MODEL_SEED={seed}: {outcome.story}"
    assert done >= steps


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_broken_services_are_noticed(sabotage: Sabotage) -> None:
    outcome = share(_STEPS_UNTIL_NOTICED, 1, sabotage.make, shrink=False)

    print(f"{outcome.violated} after {outcome.done} steps")
    assert outcome.violated in sabotage.noticed, outcome.story or f"nothing was noticed in {outcome.done} steps"


def test_a_run_can_be_repeated() -> None:
    first, second = share(150, 7), share(150, 7)

    assert first.ends, "nothing happened that could have differed"
    assert (first.steps, first.ends, first.seconds) == (second.steps, second.ends, second.seconds)


def _shared_out(steps: int, seed: int) -> list[Outcome]:
    # Spawned, not forked: threads of other tests may be about.
    with ProcessPoolExecutor(_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [
            pool.submit(share, -(-steps // _PROCESSES), seed + number * _SEEDS_APART) for number in range(_PROCESSES)
        ]
        return [each.result() for each in shares]
