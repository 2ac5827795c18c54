"""`python -m tests.fuzz --cases 10000`: fuzzes the API until so many requests were judged, and says what was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.passes import CALLERS, fuzz
from tests.fuzz.site import site

_EXAMPLES = 150


def main() -> int:
    """1 when anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="requests to judge (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next")
    options = parser.parse_args()
    began, cases, seed = time.monotonic(), 0, options.seed
    with tempfile.TemporaryDirectory(prefix="medforge-fuzz-") as directory, site(Path(directory)) as installation:
        while cases < options.cases:
            for caller in CALLERS:
                outcome = fuzz(installation, caller, examples=_EXAMPLES, seed=seed)
                cases += outcome.cases
                print(f"seed {seed}, {caller}: {outcome.cases} cases, {outcome.failures} failures", flush=True)
                if not outcome.clean:
                    print(outcome.told, *installation.failures(), sep="\n")
                    return 1
            seed += 1
        failures = installation.failures()
    print("\n".join(failures))
    print(f"{cases} cases in {time.monotonic() - began:.0f} s, {len(failures)} errors in the logs")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
