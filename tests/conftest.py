"""Lanes: each test belongs to one, `--lanes` chooses, and the fast ones come first."""

from __future__ import annotations

import signal

import pytest

# Here, since a module that test modules import can become a plugin only before them.
pytest_plugins = ["tests.fixtures.figures"]

_ORDER = ("unit", "integration", "host", "browser", "gpu", "hostlab")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lanes",
        default="unit,integration",
        help=f"comma-separated lanes to run, of {', '.join(_ORDER)} (default: %(default)s); ops/test runs all of them",
    )


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored, and every program that a test starts would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(config.getoption("--lanes").split(","))
    if unknown := wanted - set(_ORDER):
        raise pytest.UsageError(f"unknown lanes: {', '.join(sorted(unknown))}; there are {', '.join(_ORDER)}")
    if homeless := [item.nodeid for item in items if _lane(item) is None]:
        raise pytest.UsageError(f"tests without a lane would never run: {', '.join(homeless[:5])}")
    left_out = [item for item in items if _lane(item) not in wanted]
    items[:] = sorted(
        (item for item in items if _lane(item) in wanted), key=lambda item: _ORDER.index(str(_lane(item)))
    )
    config.hook.pytest_deselected(items=left_out)


def _lane(item: pytest.Item) -> str | None:
    """The most demanding lane that the item or its module names: one parameter of a suite can need more than others."""
    named = {mark.name for mark in item.iter_markers()}
    return next((lane for lane in reversed(_ORDER) if lane in named), None)
