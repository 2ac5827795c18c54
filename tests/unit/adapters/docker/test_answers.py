"""Owns the tests of how the engine's answers about containers are read: recorded ones, and senseless ones."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.docker.answers import Senseless, container_info, container_summaries, image_id, part
from medforged.domain.containers import ContainerInfo, ContainerState, ContainerSummary

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


def listing(engine: str = "20.10") -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads((RECORDED / engine / "listing.json").read_text(encoding="utf-8"))
    return answer


@pytest.mark.parametrize("engine", ENGINES)
def test_listing_has_our_containers_by_name_in_every_state(engine: str) -> None:
    answer = listing(engine)
    recorded_by_name = {entry["Names"][0].removeprefix("/"): entry for entry in answer}
    assert "trap" in recorded_by_name  # an image with our labels: the engine's filter lets it through

    found = container_summaries(answer, "recorded")

    assert [(summary.name, summary.state) for summary in found] == [
        ("mf-session-created2", ContainerState.CREATED),
        ("mf-session-exited22", ContainerState.EXITED),
        ("mf-session-oomoom22", ContainerState.EXITED),
        ("mf-session-paused22", ContainerState.RUNNING),
        ("mf-session-running2", ContainerState.RUNNING),
    ]
    for summary in found:
        assert summary.id == recorded_by_name[summary.name]["Id"]
        assert str(summary.session_id) == recorded_by_name[summary.name]["Labels"]["dev.medforge.session"]
    assert container_summaries(answer, "another") == ()


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
def test_rarer_states_in_a_listing(status: object, state: ContainerState) -> None:
    answer = [entry | {"State": status} for entry in listing()]

    assert {summary.state for summary in container_summaries(answer, "recorded")} == {state}


def one_listed(**changes: object) -> list[dict[str, Any]]:
    (running,) = (entry for entry in listing() if entry["State"] == "running" and entry["Names"] != ["/trap"])
    return [running | changes]


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/one", "/two/alias"], "one"),
        (["/two/alias", "/one"], "one"),
        (["/two/alias"], None),
        ([], None),  # it is being removed
        (None, None),
        (["/"], None),
        (["one"], None),
        ([5], None),
    ],
)
def test_listed_container_has_its_own_name_or_is_left_out(names: object, name: str | None) -> None:
    found = container_summaries(one_listed(Names=names), "recorded")

    assert [summary.name for summary in found] == ([] if name is None else [name])


def test_session_of_a_listed_container_may_be_malformed() -> None:
    (entry,) = one_listed()
    labels = entry["Labels"] | {"dev.medforge.session": "nonsense"}

    (summary,) = container_summaries([entry | {"Labels": labels}], "recorded")

    assert summary == ContainerSummary(entry["Names"][0][1:], entry["Id"], ContainerState.RUNNING, None)


@pytest.mark.parametrize("labels", [None, {}, [], {"dev.medforge.instance": "recorded"}])
def test_listed_container_without_our_labels_is_not_ours(labels: object) -> None:
    assert container_summaries(one_listed(Labels=labels), "recorded") == ()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        "nonsense",
        [None],
        [[]],
        [{}],
        one_listed(Id=None),
        one_listed(ImageID=None),
        one_listed(ImageID=5),
        one_listed(Names="/one"),
        [*listing(), 5],
    ],
)
def test_listing_without_sense_is_an_error_and_no_shorter_listing(answer: object) -> None:
    with pytest.raises(Senseless, match="its containers"):
        container_summaries(answer, "recorded")
