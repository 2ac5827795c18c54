"""Fixtures of the CLI's integration tests: a scripted daemon, a real facade, and the program that talks to both."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.operated import OperatedFacade
from tests.integration.cli.program import Medforgectl, loaded
from tests.integration.cli.scripted import ScriptedDaemon
from tests.integration.cli.warm import Warm


@pytest.fixture
def socket_path() -> Iterator[Path]:
    # Not below pytest's own directory: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mf-cli-") as folder:
        yield Path(folder) / "medforged.sock"


@pytest.fixture
def daemon(socket_path: Path) -> Iterator[ScriptedDaemon]:
    scripted = ScriptedDaemon(socket_path)
    scripted.start()
    yield scripted
    scripted.close()


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with loaded() as warm:
        yield warm


@pytest.fixture
def facade(daemon: ScriptedDaemon, socket_path: Path) -> Iterator[OperatedFacade]:
    operated = OperatedFacade(socket_path.parent)
    operated.start()
    yield operated
    operated.close()


@pytest.fixture
def medforgectl(socket_path: Path, warm: Warm) -> Medforgectl:
    return Medforgectl(socket_path, warm)
