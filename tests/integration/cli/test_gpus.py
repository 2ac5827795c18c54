"""`medforgectl gpus`: every known GPU, its readings and its holder, and what an operator decides about one."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from medforged.contract.gpus import Gpu, GpuHealth, GpuList, GpuRef, GpuResult
from tests.fakes.daemon import make_gpu
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration


def gpu(number: int, **changes: Any) -> Gpu:
    readings = {
        "index": number - 1,
        "memory_used_bytes": 3 * 2**29,
        "utilization_percent": 37,
        "temperature_celsius": 61,
        "power_milliwatts": 215_900,
        "process_ids": [4711, 4712],
    }
    return make_gpu(number, **{**readings, **changes})


def test_states_readings_and_holders(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    held, gone = daemon.add(slug="abcd2345"), uuid4()
    daemon.gpus = GpuList(
        gpus=[
            gpu(1, session_id=held.id),
            gpu(2, process_ids=[], power_milliwatts=None, temperature_celsius=None),
            gpu(3, enabled=False),
            gpu(4, health=GpuHealth.UNHEALTHY, reason="it fell off the bus (Xid 79)"),
            gpu(5, session_id=gone),
            gpu(6, quarantine="process 4711 of session zzzz2345 is still on it", enabled=False),
            gpu(7, health=GpuHealth.UNHEALTHY, reason="it is lost", quarantine="nobody can say what is on it"),
        ],
        faults=["device 5 does not tell its UUID"],
    )
    done = medforgectl("gpus")
    assert (done.returncode, done.stderr) == (0, "")
    assert medforgectl("gpus", "ls").stdout == done.stdout
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    name = "NVIDIA RTX A6000"
    assert cells == [
        ["ID", "INDEX", "NAME", "MEMORY GIB", "USE", "TEMP", "POWER", "PROCS", "STATE", "SESSION"],
        ["1", "0", name, "1.5/48.0", "37 %", "61 °C", "215 W", "2", "held", "abcd2345"],
        ["2", "1", name, "1.5/48.0", "37 %", "-", "-", "0", "free", "-"],
        ["3", "2", name, "1.5/48.0", "37 %", "61 °C", "215 W", "2", "disabled", "-"],
        ["4", "3", name, "1.5/48.0", "37 %", "61 °C", "215 W", "2", "unhealthy", "-"],
        ["5", "4", name, "1.5/48.0", "37 %", "61 °C", "215 W", "2", "held", str(gone)],
        ["6", "5", name, "1.5/48.0", "37 %", "61 °C", "215 W", "2", "quarantined", "-"],
        ["7", "6", name, "1.5/48.0", "37 %", "61 °C", "215 W", "2", "unhealthy", "-"],
        ["GPU 4: it fell off the bus (Xid 79)"],
        ["GPU 6: process 4711 of session zzzz2345 is still on it"],
        ["GPU 7: it is lost"],
        ["GPU 7: nobody can say what is on it"],
        ["Fault: device 5 does not tell its UUID"],
    ]


def test_free_gpus_need_no_second_question(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[gpu(1)], faults=[])
    assert medforgectl("gpus").returncode == 0
    assert [call.method for call in daemon.calls] == ["gpus.list"]


def test_json_is_the_contracts_own(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[gpu(1, session_id=uuid4()), gpu(2, quarantine="not seen free")], faults=["one"])
    done = medforgectl("gpus", "-o", "json")
    assert done.returncode == 0
    assert medforgectl("gpus", "ls", "-o", "json").stdout == done.stdout
    assert msgspec.json.decode(done.stdout, type=GpuList) == daemon.gpus


NO_UUID = "GPU-5d2f8a1e-0c6b-4f0e-9a37-2b8e6c1d4f70"


@pytest.mark.parametrize(
    ("command", "changes", "held", "sentence"),
    [
        ("enable", {"enabled": False}, False, "GPU 3 is enabled and free."),
        ("enable", {}, True, "GPU 3 is enabled; session abcd2345 has it."),
        ("enable", {"quarantine": "not seen free"}, False, "GPU 3 is enabled, but quarantined: not seen free"),
        ("disable", {}, False, "GPU 3 is disabled; no session will get it."),
        ("disable", {}, True, "GPU 3 is disabled; session abcd2345 keeps it until it ends."),
        ("recheck", {}, False, "GPU 3 is healthy and free."),
        ("recheck", {"enabled": False}, True, "GPU 3 is healthy; session abcd2345 has it."),
        (
            "recheck",
            {"enabled": False},
            False,
            "GPU 3 is healthy, but disabled; give it to sessions with medforgectl gpus enable 3.",
        ),
    ],
)
def test_one_line_says_what_is_now_true(
    daemon: ScriptedDaemon,
    medforgectl: Medforgectl,
    command: str,
    changes: dict[str, Any],
    held: bool,
    sentence: str,
) -> None:
    daemon.gpus = GpuList(gpus=[gpu(2), gpu(3, **changes)], faults=[])
    if held:
        daemon.add(slug="abcd2345", gpu_id=3)
    for named in ("3", gpu(3).uuid):
        done = medforgectl("gpus", command, named)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{sentence}\n", "")
    assert [call.params for call in daemon.called(f"gpus.{command}")] == [GpuRef(gpu_id=3)] * 2
    assert daemon.gpus.gpus[0] == gpu(2)


def test_enabling_and_disabling_are_seen_in_the_list(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[gpu(3)], faults=[])
    assert medforgectl("gpus", "disable", "3").returncode == 0
    assert "disabled" in medforgectl("gpus").stdout
    assert medforgectl("gpus", "enable", "3").returncode == 0
    assert "free" in medforgectl("gpus").stdout


@pytest.mark.parametrize("command", ["enable", "disable", "recheck"])
def test_json_is_the_result_of_the_call(daemon: ScriptedDaemon, medforgectl: Medforgectl, command: str) -> None:
    daemon.gpus = GpuList(gpus=[gpu(3, session_id=uuid4())], faults=[])
    done = medforgectl("gpus", command, "3", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert msgspec.json.decode(done.stdout, type=GpuResult).gpu == daemon.gpus.gpus[0]
    assert [call.method for call in daemon.calls] == [f"gpus.{command}"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"health": GpuHealth.UNHEALTHY, "reason": "it is\nlost \x1b[31m"}, r"unhealthy: it is lost \x1b[31m"),
        ({"health": GpuHealth.UNHEALTHY}, "unhealthy: the daemon does not say why"),
        ({"quarantine": "process 4711 is on it"}, "quarantined: process 4711 is on it"),
        (
            {"health": GpuHealth.UNHEALTHY, "reason": "it is lost", "quarantine": "not seen free"},
            "unhealthy: it is lost; and quarantined: not seen free",
        ),
    ],
)
def test_a_recheck_that_changes_nothing_is_a_failure(
    daemon: ScriptedDaemon, medforgectl: Medforgectl, changes: dict[str, Any], why: str
) -> None:
    daemon.gpus = GpuList(gpus=[gpu(3, **changes)], faults=[])
    done = medforgectl("gpus", "recheck", "3")
    assert (done.returncode, done.stdout, done.stderr) == (1, f"GPU 3 is still {why}\n", "")
    done = medforgectl("gpus", "recheck", "3", "-o", "json")
    assert done.returncode == 1
    assert msgspec.json.decode(done.stdout, type=GpuResult).gpu == gpu(3, **changes)


def test_a_recheck_that_finds_it_well(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[gpu(3, health=GpuHealth.UNHEALTHY, reason="Xid 79", quarantine="not seen")], faults=[])
    daemon.rechecks[3] = {"health": GpuHealth.HEALTHY, "reason": None, "quarantine": None}
    done = medforgectl("gpus", "recheck", "3")
    assert (done.returncode, done.stdout) == (0, "GPU 3 is healthy and free.\n")


def test_a_holder_that_cannot_be_asked_for_is_told_by_its_id(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    gone = uuid4()
    daemon.gpus = GpuList(gpus=[gpu(3, session_id=gone)], faults=[])
    done = medforgectl("gpus", "disable", "3")
    assert (done.returncode, done.stdout) == (0, f"GPU 3 is disabled; session {gone} keeps it until it ends.\n")


@pytest.mark.parametrize("command", ["enable", "disable", "recheck"])
def test_a_gpu_that_does_not_exist(daemon: ScriptedDaemon, medforgectl: Medforgectl, command: str) -> None:
    for named in ("9", NO_UUID):
        done = medforgectl("gpus", command, named)
        assert (done.returncode, done.stdout) == (66, "")
        assert done.stderr.startswith("medforgectl: cannot")
        assert done.stderr.count("\n") == 1
    assert [call.params.gpu_id for call in daemon.called(f"gpus.{command}")] == [9]
