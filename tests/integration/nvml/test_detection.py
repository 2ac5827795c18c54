"""What is found at start, in processes of their own, and that nothing keeps them from ending."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.nvml import detect
from tests.fixtures.nvml.build import SONAME
from tests.fixtures.nvml.script import VARIABLE, NvmlScript

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def see(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    clean = {key: value for key, value in os.environ.items() if key not in {"LD_LIBRARY_PATH", VARIABLE}}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.nvml.look", *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_a_host_without_the_library_has_no_adapter() -> None:
    probe = f"import ctypes; ctypes.CDLL({SONAME!r})"
    if subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0:
        pytest.skip(f"this machine has a {SONAME} of its own")

    assert see({}) == {"reason": "libnvidia-ml.so.1 is not installed", "driver": False, "error": None}


def test_a_library_that_cannot_be_loaded_is_a_failure_and_not_an_absence(tmp_path: Path) -> None:
    (tmp_path / SONAME).write_text("this is no library\n")

    seen = see({"LD_LIBRARY_PATH": str(tmp_path)})

    assert seen["driver"] is True
    assert seen["error"].startswith("cannot read the GPUs: libnvidia-ml.so.1 cannot be loaded; install")
    assert seen["reason"] == seen["error"].replace("cannot read the GPUs", "libnvidia-ml.so.1")


def test_a_host_whose_kernel_driver_is_not_loaded_has_a_failing_adapter(directory: Path) -> None:
    seen = see({"LD_LIBRARY_PATH": str(directory)})

    assert seen["driver"] is True
    assert "the NVIDIA kernel driver is not loaded; load it with `modprobe nvidia`" in seen["reason"]
    assert "the NVIDIA kernel driver is not loaded" in seen["error"]


def test_a_program_finds_the_library_by_its_environment_alone(directory: Path, script: NvmlScript) -> None:
    seen = see({"LD_LIBRARY_PATH": str(directory), VARIABLE: str(script.path)})

    assert seen["reason"] == "libnvidia-ml.so.1: driver 570.86.15, 3 GPUs"
    assert [device["uuid"] for device in seen["devices"]] == [gpu.uuid for gpu in script.gpus]


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetName"])
def test_a_stuck_driver_does_not_keep_a_process_from_ending(directory: Path, script: NvmlScript, function: str) -> None:
    script.hang(function, 600)

    seen = see({"LD_LIBRARY_PATH": str(directory), VARIABLE: str(script.path)}, "0.5")

    assert "has not answered" in (seen["error"] or " ".join(seen["faults"]))


async def test_detection_in_this_process_gives_a_driver_that_works(library: ctypes.CDLL, script: NvmlScript) -> None:
    script.fail("nvmlInitWithFlags", "LIB_RM_VERSION_MISMATCH")
    found = await detect()
    assert found.driver is not None
    assert "different versions" in found.reason
    script.heal()

    assert len((await found.driver.inventory()).devices) == 3
    assert found.driver.describe().reason == "libnvidia-ml.so.1: driver 570.86.15, 3 GPUs"
    await found.driver.close()
    assert library.medforgeInitialisations() == 0
