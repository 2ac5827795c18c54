"""Drills: a GPU breaks under a session, and operators take GPUs out of service and put them back."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode
from medforged.contract.gpus import Gpu, GpuHealth, GpuRef
from medforged.contract.methods import gpus_list, gpus_recheck
from medforged.contract.sessions import SessionStatus
from tests.fixtures.figures import Figure
from tests.fixtures.nvml.build import SONAME, build
from tests.fixtures.nvml.script import VARIABLE, NvmlScript
from tests.host.drill_daemon import DaemonMaker, DrillDaemon, gathered
from tests.host.drill_engine import Engine
from tests.host.drills import agrees, ground_of, ground_of_installation
from tests.host.installation import Installation, Visitor, until

pytestmark = pytest.mark.host
pytest_plugins = ["tests.host.drill_fixtures"]

_SECONDS = 6.0
_OFF_THE_BUS = 79
_BY_A_PROGRAM = 31


@pytest.fixture
def script(engine: Engine) -> NvmlScript:
    return NvmlScript(engine.directory / "gpus.txt")


@pytest.fixture
async def daemon(
    engine: Engine, script: NvmlScript, make_daemon: DaemonMaker, pytestconfig: pytest.Config
) -> DrillDaemon:
    """One with NVML, whose GPUs do what the script says; Docker calls a hook that gives containers none of them."""
    library = build(pytestconfig.cache.mkdir("nvml"))
    assert (library / SONAME).exists()
    made: DrillDaemon = make_daemon(
        settings={"adapters": {"gpus": "nvml"}},
        environment={"LD_LIBRARY_PATH": str(library), VARIABLE: str(script.path)},
    )
    await made.start()
    return made


async def _gpu(daemon: DrillDaemon, number: int) -> Gpu:
    listed = (await daemon.client.call(gpus_list, gpus_list.params())).gpus
    return next(gpu for gpu in listed if gpu.id == number)


async def test_a_gpu_falls_off_the_bus_under_a_session(daemon: DrillDaemon, script: NvmlScript, figure: Figure) -> None:
    first, second = [await daemon.create() for _ in range(2)]
    broken, other = first.gpu_id, second.gpu_id
    script.xid(first.gpu_uuid, _OFF_THE_BUS)
    began = time.monotonic()

    async def out_of_use() -> bool:
        return (await _gpu(daemon, broken)).health is GpuHealth.UNHEALTHY

    await until(out_of_use, _SECONDS)
    figure("Xid 79 until the GPU is out of use", time.monotonic() - began)
    # Its session goes on and is told; the other one's is not touched, and neither is the daemon's own health.
    told = await daemon.read(first)
    assert told.status is SessionStatus.RUNNING
    assert (told.error_message or "").startswith(f"GPU {broken} is unhealthy: ")
    assert str(_OFF_THE_BUS) in (told.error_message or "")
    assert daemon.events(event="session.gpu_unhealthy", slug=first.slug)
    assert (await daemon.read(second)).error_message is None
    assert (await _gpu(daemon, other)).health is GpuHealth.HEALTHY
    assert await daemon.problems() == {}

    # What a program can cause by itself is told, and nothing else.
    script.xid(second.gpu_uuid, _BY_A_PROGRAM)

    async def is_told() -> bool:
        return bool(daemon.events(event="gpu.xid", gpu_uuid=second.gpu_uuid, fault=False))

    await until(is_told, _SECONDS)
    assert (await _gpu(daemon, other)).health is GpuHealth.HEALTHY

    # It is given to nobody, also when its session has ended, until somebody says that it is repaired.
    assert (await daemon.end(first)).status is SessionStatus.STOPPED
    third = await daemon.create()
    assert third.gpu_id not in (broken, other)
    (refused,) = await gathered(daemon.create())
    assert isinstance(refused, DaemonError)
    assert refused.code is ErrorCode.NO_GPU_AVAILABLE
    seen = (await daemon.client.call(gpus_recheck, GpuRef(gpu_id=broken))).gpu
    assert (seen.health, seen.quarantine) == (GpuHealth.HEALTHY, None)
    again = await daemon.create()
    assert again.gpu_id == broken
    await agrees(ground_of(daemon))


async def test_a_lost_gpu_is_in_quarantine_until_it_is_seen_again(daemon: DrillDaemon, script: NvmlScript) -> None:
    session = await daemon.create()
    (gone,) = [gpu for gpu in script.gpus if gpu.uuid == session.gpu_uuid]
    place = script.gpus.index(gone)
    script.gpus.remove(gone)
    script.write()
    assert (await daemon.end(session)).status is SessionStatus.STOPPED
    seen = await _gpu(daemon, session.gpu_id)
    assert seen.quarantine is not None
    assert "does not list it any more" in seen.quarantine
    script.gpus.insert(place, gone)
    script.write()
    await agrees(ground_of(daemon))


async def test_a_process_that_stays_keeps_its_gpu_from_others(daemon: DrillDaemon, script: NvmlScript) -> None:
    session = await daemon.create()
    other = await daemon.create()
    (gpu,) = [gpu for gpu in script.gpus if gpu.uuid == session.gpu_uuid]
    # One of another session's container: it says nothing about this one.
    gpu.compute = [daemon.process_of(other)]
    script.write()
    assert (await daemon.end(session)).status is SessionStatus.STOPPED
    assert (await _gpu(daemon, session.gpu_id)).quarantine is None
    await agrees(ground_of(daemon))


async def test_operators_take_a_gpu_out_of_service(installation: Installation, alice: Visitor, bob: Visitor) -> None:
    async with ground_of_installation(installation) as ground:
        session = await alice.create()
        number = str(session["gpu_id"])
        installation.ctl("gpus", "disable", number)
        # Who has it keeps it, and the next one gets another.
        assert (await alice.read(session))["status"] == "running"
        assert (await bob.create())["gpu_id"] != session["gpu_id"]
        await alice.stop(session)
        again = await alice.create()
        assert again["gpu_id"] != session["gpu_id"]
        await asyncio.gather(alice.stop_all(), bob.stop_all())
        installation.ctl("gpus", "enable", number)
        installation.ctl("gpus", "recheck", number)
        listed = json.loads(installation.ctl("gpus", "-o", "json").stdout)["gpus"]
        assert all(gpu["enabled"] and gpu["health"] == "healthy" for gpu in listed)
        assert (await alice.create())["gpu_id"] == session["gpu_id"]
        await agrees(ground)
