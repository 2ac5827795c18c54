"""Owns the command: `python -m tests.crash` goes through every crash point and prints how many were survived.

    python -m tests.crash                       every scenario, and the recovery from some states that its crashes leave
    python -m tests.crash --all                 from all of them, and from those that crashes in recoveries leave
    python -m tests.crash --scenario stop       some scenarios
    python -m tests.crash --controls            with one protection after the other taken away: invariants have to fail
    python -m tests.crash --sample              one after the other, at one point of each kind: as on a real host
    python -m tests.crash --points              which points there are

Ends with status 1 when a point was not survived or could not be met again, or a control was not noticed.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.lives import rehearse
from tests.crash.sabotages import SABOTAGES
from tests.crash.scenarios import SCENARIOS
from tests.crash.simulated import SimulatedTestbed
from tests.crash.tallies import Tally, tell
from tests.crash.tour import Tour, go_round
from tests.crash.troupe import Troupe

__all__ = ["main"]

# Forced writes cost nothing there, and a SIGKILL loses no written page wherever the file is.
_MEMORY = Path("/dev/shm")


def main() -> int:
    """The status to exit with."""
    arguments = _arguments()
    names = arguments.scenario or [scenario.name for scenario in SCENARIOS]
    # What is imported by now is never collected: daemons that are forked share its pages.
    gc.collect()
    gc.freeze()
    root = Path(tempfile.mkdtemp(prefix="mfcrash-", dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        if arguments.sample:
            return 0 if _sample(root, names, points=arguments.points) else 1
        with Troupe(root, arguments.processes) as troupe:
            # Only from here on, so that those who are forked die of it as usual: what lies in memory goes away with us.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            failed = _controls(troupe) if arguments.controls else _explore(troupe, names, arguments)
    finally:
        if arguments.keep is not None:
            shutil.copytree(root, arguments.keep, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(root, ignore_errors=True)
    return 1 if failed else 0


def _sample(root: Path, names: list[str], *, points: bool) -> bool:
    tour = Tour(SimulatedTestbed(root / "tour"), root / "tour.log")
    chosen = [scenario for scenario in SCENARIOS if scenario.name in names]
    rehearse(tour.settings(chosen[0]))
    tour.testbed.clear()
    return go_round(tour, chosen, points=points)


def _explore(troupe: Troupe, names: list[str], arguments: argparse.Namespace) -> bool:
    began = time.monotonic()
    acts: dict[str, Tally] = {}
    for tally in troupe.acts(names):
        acts[tally.scenario] = tally
        _progress(f"{tally.scenario}: {tally.survived}/{tally.points} points in {tally.seconds:.1f} s")
    recoveries: dict[str, Tally] = {}
    for tally in troupe.recoveries(acts.values(), every=arguments.all):
        recoveries.setdefault(tally.scenario, Tally(tally.scenario, begins=0)).add(tally)
        _progress(f"{tally.scenario}: {tally.survived}/{tally.points} points of a recovery in {tally.seconds:.1f} s")
    for name, act in acts.items():
        recovery = recoveries.get(name, Tally(name, begins=0))
        print(
            f"{name}: {act.survived}/{act.points} points, recovery {recovery.survived}/{recovery.points} "
            f"from {recovery.begins} of {len(act.states) + len(recovery.states)} states (of which {recovery.known} led to a state already survived), "
            f"{act.seconds + recovery.seconds:.1f} s"
        )
        for tally in (act, recovery):
            tell(tally)
    every = [*acts.values(), *recoveries.values()]
    if arguments.points:
        for label in sorted({label for tally in every for label in tally.met}):
            print(f"  {label}")
    survived, total = sum(tally.survived for tally in every), sum(tally.points for tally in every)
    known, killed = sum(tally.known for tally in every), sum(tally.killed for tally in every)
    print(f"{killed} daemons killed in {time.monotonic() - began:.0f} s")
    print(f"of which {known} led to a state already survived")
    print(f"crash points: {survived}/{total} survived")
    return survived != total or any(tally.failures for tally in every) or not total


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _controls(troupe: Troupe) -> bool:
    noticed = 0
    for sabotage, tally in troupe.controls():
        if tally.failed(sabotage.noticed):
            noticed += 1
            failure = next(failure for failure in tally.failures if failure.tells(sabotage.noticed))
            print(f"{sabotage.name}: noticed by {sabotage.noticed} at {failure.where}")
        else:
            print(f"{sabotage.name}: NOT noticed by {sabotage.noticed} in {tally.points} points of {sabotage.scenario}")
            for failure in tally.failures:
                print(f"  {failure.where}: {'; '.join(str(violation) for violation in failure.violations)}")
    print(f"controls: {noticed}/{len(SABOTAGES)} noticed")
    return noticed != len(SABOTAGES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill the daemon at every point.")
    parser.add_argument("--scenario", action="append", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--controls", action="store_true", help="take protections away: invariants have to fail")
    parser.add_argument("--all", action="store_true", help="crashes of any number after each other (long)")
    parser.add_argument("--sample", action="store_true", help="one point of each kind, without copies of states")
    parser.add_argument("--points", action="store_true", help="print which points there are")
    parser.add_argument("--processes", type=int, default=2, help="how many daemons may live at once (default: 2)")
    parser.add_argument("--keep", type=Path, help="copy all states to this directory, which must not exist")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
