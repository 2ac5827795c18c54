"""Owns the command that kills daemons on a real host: `python -m tests.host.crash --config FILE`, in its network namespace.

    --control NAME    with this protection taken away; ends with 0 when its invariant has noticed

Prints what was survived, and ends with 1 when something was not. It is a process of its own because daemons are forked
from it: it must have no thread, and no event loop.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from pathlib import Path

from medforged.config import load_settings
from tests.crash.lives import rehearse
from tests.crash.sabotages import SABOTAGES
from tests.crash.scenarios import SCENARIOS
from tests.crash.tour import Tour, go_round
from tests.host.crash_testbed import RealTestbed

__all__ = ["LEFT_OUT", "main"]

# Scenarios that are gone through on the simulated host alone, and why.
LEFT_OUT = {
    "engine restarts": "the engine belongs to the drills; tests/host/test_drills_docker.py restarts it",
    "GPU is let go": "only the database and GPUs, which are simulated here too, have a part in it",
    "GPU is let go while the daemon is away": "as above",
    "GPU is rechecked": "as above",
    "GPU is disabled": "as above",
    "GPU is enabled": "as above",
}


def main() -> int:
    """The status to exit with."""
    parser = argparse.ArgumentParser(prog="python -m tests.host.crash", description="Kill the daemon on a real host.")
    parser.add_argument("--config", type=Path, required=True, help="the settings of an installation that does not run")
    parser.add_argument("--scenario", action="append", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--control", choices=[sabotage.name for sabotage in SABOTAGES])
    parser.add_argument("--points", action="store_true", help="print which points there were")
    arguments = parser.parse_args()
    testbed = RealTestbed(load_settings(arguments.config, {}))
    sabotage = next((sabotage for sabotage in SABOTAGES if sabotage.name == arguments.control), None)
    tour = Tour(testbed, arguments.config.with_suffix(".crash.log"), sabotage)
    # From here on it ends as it does by itself, and clears away what it has made; a daemon has a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    testbed.clear()
    rehearse(tour.settings(SCENARIOS[0]))
    gc.collect()
    gc.freeze()
    try:
        if sabotage is not None:
            scenario = next(scenario for scenario in SCENARIOS if scenario.name == sabotage.scenario)
            failures = tour.visit(scenario).failures
            told = [str(violation) for failure in failures for violation in failure.violations]
            print(*told, sep="\n")
            return 0 if any(failure.tells(sabotage.noticed) for failure in failures) else 1
        chosen = [scenario for scenario in SCENARIOS if scenario.name not in LEFT_OUT]
        if arguments.scenario:
            chosen = [scenario for scenario in SCENARIOS if scenario.name in arguments.scenario]
        return 0 if go_round(tour, chosen, points=arguments.points) else 1
    finally:
        testbed.clear()


if __name__ == "__main__":
    sys.exit(main())
