"""`medforgectl status`: what people and monitors learn from it."""

from __future__ import annotations

import msgspec
import pytest

from medforged.contract.daemon import Adapter, Check, DaemonStatus, Health
from tests.integration.cli.program import Medforgectl
from tests.integration.cli.scripted import ScriptedDaemon

pytestmark = pytest.mark.integration


def test_a_daemon_that_is_well(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.status = msgspec.structs.replace(
        daemon.status, gpus_total=8, gpus_free=5, sessions_by_status={"running": 3, "stopped": 41}
    )
    done = medforgectl("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "medforged 0.1.0 (medforge), started 2026-02-17T04:58:24Z: ok",
        "GPUs: 5 of 8 free",
        "Sessions: 3 running, 41 stopped",
    ]
    assert [line.split() for line in lines if line.startswith("gpus ")] == [
        ["gpus", "nvml", "real", "libnvidia-ml.so.1", "answers"]
    ]


def test_a_degraded_daemon_ends_with_one_and_says_why(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    daemon.status = msgspec.structs.replace(
        daemon.status,
        health=Health.DEGRADED,
        checks=[Check(name="isolation", health=Health.DEGRADED, message="the probe got through; see its log")],
        adapters=[Adapter(port="isolation", adapter="simulated", real=False, reason="--simulate was given")],
    )
    done = medforgectl("status")
    assert done.returncode == 1
    assert "isolation  degraded  the probe got through; see its log" in done.stdout
    assert "isolation  simulated  simulated  --simulate was given" in done.stdout
    assert medforgectl("status", "-o", "json").returncode == 1


def test_json_is_the_contracts_own(daemon: ScriptedDaemon, medforgectl: Medforgectl) -> None:
    done = medforgectl("status", "-o", "json")
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout, type=DaemonStatus) == daemon.status
