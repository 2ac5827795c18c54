"""Owns the tests of how the engine's answers about containers are read: recorded ones, and senseless ones."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.docker.answers import container_info, image_id, part
from medforged.domain.containers import ContainerInfo, ContainerState

pytestmark = pytest.mark.unit

RECORDED = Path(__file__).parents[3] / "fixtures" / "docker"
ENGINES = ("20.10", "28.5")
NAME = "mf-session-abcd2345"


def recorded(engine: str, what: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((RECORDED / engine / f"{what}.json").read_text(encoding="utf-8"))
    return answer


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["running", "paused"])
def test_container_that_has_processes_is_running(engine: str, what: str) -> None:
    answer = recorded(engine, what)

    info = container_info(NAME, answer)

    assert (info.name, info.id, info.state) == (NAME, answer["Id"], ContainerState.RUNNING)
    assert str(info.session_id) == answer["Config"]["Labels"]["dev.medforge.session"]
    assert info.process_id == answer["State"]["Pid"] > 0
    assert info.address == IPv4Address(answer["NetworkSettings"]["Networks"]["mfct-recorded"]["IPAddress"])
    assert (info.exit_code, info.oom_killed) == (None, False)
    assert image_id(answer) == answer["Config"]["Labels"]["dev.medforge.image"]


@pytest.mark.parametrize("engine", ENGINES)
def test_created_container_has_no_process_yet(engine: str) -> None:
    info = container_info(NAME, recorded(engine, "created"))

    assert info.state is ContainerState.CREATED
    assert (info.address, info.process_id, info.exit_code) == (None, None, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_exited_container_has_a_status(engine: str) -> None:
    info = container_info(NAME, recorded(engine, "exited"))

    assert info.state is ContainerState.EXITED
    assert (info.address, info.process_id, info.exit_code) == (None, None, 143)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("removing", ContainerState.EXITED),
        ("dead", ContainerState.EXITED),
        ("restarting", ContainerState.UNKNOWN),
        ("frozen", ContainerState.UNKNOWN),
        (None, ContainerState.UNKNOWN),
        (["running"], ContainerState.UNKNOWN),
    ],
)
def test_rarer_states(status: object, state: ContainerState) -> None:
    answer = recorded("20.10", "running")
    answer["State"]["Status"] = status

    info = container_info(NAME, answer)

    assert info.state is state
    assert (info.address, info.process_id) == (None, None)


@pytest.mark.parametrize("pid", [0, -1, None, "12", True])
def test_running_container_without_a_process_makes_no_sense(pid: object) -> None:
    answer = recorded("20.10", "running")
    answer["State"]["Pid"] = pid

    assert container_info(NAME, answer).state is ContainerState.UNKNOWN


def test_memory_that_ran_out_is_told() -> None:
    answer = recorded("20.10", "exited")
    answer["State"]["OOMKilled"] = True

    assert container_info(NAME, answer).oom_killed


def test_address_is_that_of_the_network_it_was_created_on() -> None:
    answer = recorded("28.5", "running")
    networks = answer["NetworkSettings"]["Networks"]
    answer["NetworkSettings"]["Networks"] = {"another": {"IPAddress": "10.0.0.1"}, **networks}

    assert container_info(NAME, answer).address == IPv4Address(networks["mfct-recorded"]["IPAddress"])
    del answer["NetworkSettings"]["Networks"]["mfct-recorded"]
    info = container_info(NAME, answer)
    assert (info.address, info.state) == (None, ContainerState.RUNNING)


@pytest.mark.parametrize(
    "answer", [{}, {"State": None}, {"State": [], "Config": 3}, {"Id": 5, "State": {"Status": "exited"}}]
)
def test_answer_without_sense_is_unknown_and_no_crash(answer: dict[str, Any]) -> None:
    assert container_info(NAME, answer) == ContainerInfo(NAME, ContainerState.UNKNOWN)


def test_part_of_an_answer_that_is_no_object_is_empty() -> None:
    assert part({"a": None}, "a") == part({}, "a") == part({"a": [1]}, "a") == {}
