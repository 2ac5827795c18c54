"""`medforgectl gpus`: every known GPU, its readings and its holder."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from medforged.contract.gpus import Gpu, GpuHealth, GpuList
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration


def gpu(number: int, **fields: Any) -> Gpu:
    return Gpu(
        **{
            "id": number,
            "uuid": f"GPU-{number}",
            "index": number - 1,
            "name": "NVIDIA RTX A6000",
            "pci_address": f"00000000:0{number}:00.0",
            "memory_total_bytes": 48 * 2**30,
            "memory_used_bytes": 3 * 2**29,
            "utilization_percent": 37,
            "temperature_celsius": 61,
            "power_milliwatts": 215_900,
            "process_ids": [4711, 4712],
            "enabled": True,
            "health": GpuHealth.HEALTHY,
            "reason": None,
            "session_id": None,
            **fields,
        }
    )


def test_states_readings_and_holders(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    held, gone = daemon.add(slug="abcd2345"), uuid4()
    daemon.gpus = GpuList(
        gpus=[
            gpu(1, session_id=held.id),
            gpu(2, process_ids=[], power_milliwatts=None, temperature_celsius=None),
            gpu(3, enabled=False),
            gpu(4, health=GpuHealth.UNHEALTHY, reason="it fell off the bus (Xid 79)"),
            gpu(5, session_id=gone),
        ],
        faults=["device 5 does not tell its UUID"],
    )
    done = medforgectl("gpus")
    assert (done.returncode, done.stderr) == (0, "")
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
        ["GPU 4: it fell off the bus (Xid 79)"],
        ["Fault: device 5 does not tell its UUID"],
    ]


def test_free_gpus_need_no_second_question(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[gpu(1)], faults=[])
    assert medforgectl("gpus").returncode == 0
    assert [call.method for call in daemon.calls] == ["gpus.list"]


def test_json_is_the_contracts_own(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.gpus = GpuList(gpus=[gpu(1, session_id=uuid4())], faults=["one"])
    done = medforgectl("gpus", "-o", "json")
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout, type=GpuList) == daemon.gpus
