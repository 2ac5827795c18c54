"""Owns running the machine: so many steps from a seed, without anything that is left of earlier runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from medforged.services.assembly import Makers
from tests.model.database import Database, in_memory
from tests.model.machine import Machine, Tally

__all__ = ["STEPS_PER_EXAMPLE", "run", "tallying"]

STEPS_PER_EXAMPLE = 50
# Each example has a host, a daemon and a database of its own: it takes as long as it takes. Every step of a machine
# draws a little, so an example with all its steps is large by that measure.
_SUPPRESSED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)


@contextmanager
def tallying() -> Iterator[Tally]:
    """A tally whose databases are gone afterwards."""
    with in_memory() as folder:
        (folder / "template").mkdir()
        yield Tally(folder, Database.template(folder / "template"))


def run(tally: Tally, make: Makers, *, steps: int, from_seed: int, shrink: bool = True) -> None:
    """Raises Violated, with the shortest sequence of steps that shows it when it is to be looked for."""

    def machine() -> Machine:
        return Machine(make, tally)

    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(
        seed(from_seed)(machine),  # type: ignore[arg-type]  # any factory will do, as its documentation says
        settings=settings(
            max_examples=math.ceil(steps / STEPS_PER_EXAMPLE),
            stateful_step_count=STEPS_PER_EXAMPLE,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=_SUPPRESSED,
            verbosity=Verbosity.normal,
            print_blob=False,
        ),
    )
