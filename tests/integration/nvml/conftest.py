"""The real NVML adapter and pynvml binding in this process, over the scripted library."""

from __future__ import annotations

import ctypes
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from medforged.adapters.nvml import NvmlGpuDriver
from tests.fixtures.nvml.build import build, load
from tests.fixtures.nvml.script import VARIABLE, NvmlScript
from tests.fixtures.nvml.watching import IMPATIENT, PATIENCE, nvml_threads


@pytest.fixture(scope="session")
def directory(pytestconfig: pytest.Config) -> Path:
    return build(Path(pytestconfig.cache.mkdir("nvml")))


@pytest.fixture
def script(tmp_path: Path) -> NvmlScript:
    return NvmlScript(tmp_path / "gpus.txt")


@pytest.fixture
def library(directory: Path, script: NvmlScript, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The scripted library in this process, left without a thread inside it."""
    loaded = load(directory)
    monkeypatch.setenv(VARIABLE, str(script.path))
    loaded.medforgeForgive()
    yield loaded
    script.heal()
    for thread in nvml_threads():
        thread.join(PATIENCE)
    assert nvml_threads() == []
    assert loaded.medforgeMisuses() == 0
    while loaded.medforgeInitialisations():  # not shut down under a thread that was stuck at the driver's close
        loaded.nvmlShutdown()


@pytest.fixture
async def driver(library: ctypes.CDLL) -> AsyncIterator[NvmlGpuDriver]:
    """A driver that never has to give up, and leaves NVML shut down."""
    driver = NvmlGpuDriver()
    yield driver
    await driver.close()
    assert library.medforgeInitialisations() == 0


@pytest.fixture
async def impatient(library: ctypes.CDLL, script: NvmlScript) -> AsyncIterator[NvmlGpuDriver]:
    """A driver that gives up soon."""
    driver = NvmlGpuDriver(timeout_seconds=IMPATIENT, attach_timeout_seconds=IMPATIENT)
    yield driver
    script.heal()
    await driver.close()
