"""Owns `ops/docs`: which reference pages are generated, and writing or checking them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ops.reference.pages import PAGES

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write the pages that have changed; with `--check` write nothing and return 1 when there are any."""
    parser = argparse.ArgumentParser(prog="ops/docs", description="Write the reference pages generated from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a page is out of date")
    check = parser.parse_args().check
    outdated = 0
    for name, render in PAGES.items():
        path, text = ROOT / name, render()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        outdated += 1
        if check:
            print(f"{name} is out of date; run ops/docs", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}", file=sys.stderr)
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
