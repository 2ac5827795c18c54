"""Owns the processes in which daemons are forked: each has a theatre, and works on one scenario or state at a time."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.crash.exploration import Explorer
from tests.crash.repertory import Repertory
from tests.crash.sabotages import SABOTAGES, Sabotage
from tests.crash.scenarios import SCENARIOS
from tests.crash.tallies import State, Tally

__all__ = ["Troupe"]

_SCENARIOS = {scenario.name: scenario for scenario in SCENARIOS}
# From so many states of a scenario recovery is gone through where not every one is asked for.
_SAMPLE = 5
_SABOTAGES = {sabotage.name: sabotage for sabotage in SABOTAGES}


class Troupe:
    """Use as a context manager. Whatever they leave is below `root`."""

    def __init__(self, root: Path, processes: int) -> None:
        self._root = root
        # Forked before this process has a thread; each of them forks daemons, and never has a second one itself.
        self._pool: Pool = multiprocessing.get_context("fork").Pool(processes, _rehearse, (root,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()

    def acts(self, names: Iterable[str]) -> Iterator[Tally]:
        """Every point of these scenarios' acts, in the order of the names."""
        return self._pool.imap(_act, [(self._root, name) for name in names])

    def recoveries(self, acts: Iterable[Tally], *, every: bool) -> Iterator[Tally]:
        """Every point of the recovery from a few of the states that these acts' crashes left, spread over each act. With
        `every` from all of them, those of scenarios that are not `deep` included, and from those that crashes in recoveries
        leave, until none is new."""
        chosen = [state for act in acts for state in (act.states if every else _some(act))]
        waiting = {state.key: state for state in chosen}
        known = set(waiting)
        while waiting:
            begins, waiting = list(waiting.values()), {}
            told = frozenset(known)
            for tally in self._pool.imap_unordered(_recovery, [(self._root, state, told) for state in begins]):
                waiting |= {state.key: state for state in tally.states if state.key not in known}
                known |= waiting.keys()
                yield tally
            if not every:
                return

    def controls(self) -> Iterator[tuple[Sabotage, Tally]]:
        """Every sabotage in its scenario, until it is noticed."""
        tallies = self._pool.imap(_control, [(self._root, sabotage.name) for sabotage in SABOTAGES])
        yield from zip(SABOTAGES, tallies, strict=True)


def _act(task: tuple[Path, str]) -> Tally:
    root, name = task
    return _timed(lambda: Explorer(_theatre(root), _states(root)).act(_SCENARIOS[name]))


def _recovery(task: tuple[Path, State, frozenset[str]]) -> Tally:
    root, state, known = task
    return _timed(lambda: Explorer(_theatre(root), _states(root), known).recovery(_SCENARIOS[state.scenario], state))


def _control(task: tuple[Path, str]) -> Tally:
    root, name = task
    sabotage = _SABOTAGES[name]
    states = root / f"sabotage-{name.replace(' ', '-')}"
    states.mkdir()
    return Explorer(_theatre(root, sabotage), states).act(_SCENARIOS[sabotage.scenario], until=sabotage.noticed)


def _some(act: Tally) -> list[State]:
    if not _SCENARIOS[act.scenario].deep:
        return []
    return act.states[:: max(1, -(-len(act.states) // _SAMPLE))]


def _timed(explore: Callable[[], Tally]) -> Tally:
    began = time.monotonic()
    tally = explore()
    tally.seconds = time.monotonic() - began
    return tally


def _theatre(root: Path, sabotage: Sabotage | None = None) -> Repertory:
    # Short names: the daemon's socket lies there, and its path may have 107 characters.
    return Repertory(root / f"p{os.getpid()}", sabotage)


def _rehearse(root: Path) -> None:
    _theatre(root).rehearse(SCENARIOS[0])


def _states(root: Path) -> Path:
    # One a process: two may meet the same state at the same time.
    states = root / f"states-{os.getpid()}"
    states.mkdir(exist_ok=True)
    return states
