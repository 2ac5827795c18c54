"""The NVML adapter on a real NVIDIA driver, compared with what nvidia-smi says.

Every look is a process of its own (tests/fixtures/nvml/look.py): this one may have loaded the scripted library.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
MIB = 1024**2
LOAD = 1024 * MIB
PATIENCE = 60.0
PROMPT = 1.0  # what is promised from an event to its being seen
BUSY = 60  # percent; a program that does nothing but fill memory comes near 100
NOISE = 64 * MIB  # what the driver takes and gives back by itself between two looks


def see() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.nvml.look"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def smi(query: str, *fields: str) -> list[dict[str, str]]:
    """Rows of `nvidia-smi --query-…`; sizes in MiB, power in watts."""
    argv = ["nvidia-smi", f"--query-{query}={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    return [dict(zip(fields, map(str.strip, row), strict=True)) for row in csv.reader(done.stdout.splitlines()) if row]


def device(uuid: str) -> dict[str, Any]:
    (found,) = [device for device in see()["devices"] if device["uuid"] == uuid]
    return dict(found)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"


@contextmanager
def load(uuid: str, *how: str) -> Iterator[int]:
    """A program with a CUDA context and LOAD bytes on this GPU, which may be `busy`; gives its process id."""
    program = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("load.py")), "0", str(LOAD), *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program.pid
    finally:
        program.communicate("", timeout=PATIENCE)


@pytest.fixture(scope="module", autouse=True)
def hardware() -> None:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("nvidia-smi is not installed here")
    seen = see()
    if not seen["driver"] or seen["error"]:
        pytest.skip(f"no NVIDIA driver answers here: {seen['error'] or seen['reason']}")


def test_identities_are_those_of_nvidia_smi() -> None:
    seen = see()["devices"]
    said = smi("gpu", "uuid", "index", "name", "pci.bus_id", "memory.total")

    assert len(seen) == len(said) > 0
    for ours, theirs in zip(seen, said, strict=True):
        assert ours["uuid"] == theirs["uuid"]
        assert ours["index"] == int(theirs["index"])
        assert ours["name"] == theirs["name"]
        assert ours["pci_address"] == theirs["pci.bus_id"].lower().removeprefix("0000")
        assert ours["memory_total_bytes"] // MIB == int(theirs["memory.total"])


def test_readings_are_those_of_nvidia_smi() -> None:
    said = smi("gpu", "uuid", "memory.used", "temperature.gpu", "utilization.gpu", "power.draw")
    for theirs in said:
        ours = device(theirs["uuid"])
        assert abs(ours["memory_used_bytes"] - int(theirs["memory.used"]) * MIB) <= NOISE
        assert abs(ours["temperature_celsius"] - int(theirs["temperature.gpu"])) <= 10
        assert 0 <= ours["utilization_percent"] <= 100
        assert ours["power_milliwatts"] is None or 0 < ours["power_milliwatts"] < 2_000_000


def test_sound_gpus_have_no_fault() -> None:
    seen = see()

    assert seen["faults"] == []
    assert [device["fault"] for device in seen["devices"]] == [None] * len(seen["devices"])


def test_a_program_on_the_gpu_is_seen_with_its_memory_and_leaves_no_trace() -> None:
    uuid = see()["devices"][0]["uuid"]
    before = device(uuid)

    with load(uuid) as pid:
        busy = device(uuid)
        listed = {int(row["pid"]) for row in smi("compute-apps", "pid", "gpu_uuid") if row["gpu_uuid"] == uuid}
        assert pid in busy["process_ids"]
        assert listed <= set(busy["process_ids"])
        assert busy["memory_used_bytes"] >= before["memory_used_bytes"] + LOAD

    eventually(lambda: pid not in device(uuid)["process_ids"])
    eventually(lambda: device(uuid)["memory_used_bytes"] <= before["memory_used_bytes"] + NOISE)


def test_utilization_under_load_is_that_of_nvidia_smi() -> None:
    uuid = see()["devices"][0]["uuid"]

    def both() -> tuple[int, int]:
        (theirs,) = [row["utilization.gpu"] for row in smi("gpu", "uuid", "utilization.gpu") if row["uuid"] == uuid]
        return device(uuid)["utilization_percent"], int(theirs)

    def agree() -> bool:
        # Two looks, some tenths of a second apart, at what the driver averages over up to a second.
        ours, theirs = both()
        return ours >= BUSY and abs(ours - theirs) <= 20

    with load(uuid, "busy"):
        eventually(agree)
    eventually(lambda: max(both()) < BUSY)


def test_an_xid_of_a_program_is_told_at_once_and_is_no_fault() -> None:
    """Both event sets get it: the one that wakes, and the one from which the look then fetches it."""
    uuid = see()["devices"][0]["uuid"]
    here = Path(__file__)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.watch", str(PATIENCE)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "ready\n"
        crashed = subprocess.run(
            [sys.executable, str(here.with_name("crash.py"))],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout.strip()
        ended = time.monotonic()
        if crashed == "no compiler":
            pytest.skip("the driver has no compiler for PTX here")
        assert int(crashed) != 0
        seen = json.loads(watcher.stdout.readline())
        elapsed = time.monotonic() - ended
    finally:
        watcher.kill()
        watcher.wait()

    assert seen["told"] is True
    assert elapsed < PROMPT
    assert seen["xids"]
    assert {reporter for reporter, _ in seen["xids"]} == {uuid}
    assert set(seen["faults"]) == {None}
