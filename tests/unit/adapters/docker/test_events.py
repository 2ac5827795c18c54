"""Owns the tests of what is asked of the engine's events, and of how they are read: recorded ones, and senseless ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from medforged.adapters.docker.answers import Senseless
from medforged.adapters.docker.events import container_event, events_request
from medforged.domain.containers import ContainerEvent, ContainerEventKind

pytestmark = pytest.mark.unit

RECORDED = Path(__file__).parents[3] / "fixtures" / "docker"
IMAGE = f"sha256:{'ab' * 32}"


def told(engine: str, instance: str) -> list[ContainerEvent]:
    lines = (RECORDED / engine / "events.jsonl").read_bytes().splitlines()
    return [event for line in lines if (event := container_event(line, instance)) is not None]


def sequence(events: list[ContainerEvent], *kinds: str) -> list[str]:
    return [f"{event.kind} {event.name.removeprefix('mf-session-')}" for event in events if event.kind.value in kinds]


@pytest.mark.parametrize("engine", ["20.10", "28.5"])
def test_recorded_events(engine: str) -> None:
    events = told(engine, "recorded")

    assert sequence(events, "start", "die", "oom", "kill", "destroy") == [
        "start running2",
        "start paused22",
        "start exited22",
        "die exited22",
        "start oomoom22",
        "oom oomoom22",
        "die oomoom22",
        "kill running2",
        "kill running2",
        "die running2",
        "destroy created2",
        "destroy running2",
        "kill paused22",
        "die paused22",
        "destroy paused22",
        "destroy exited22",
        "destroy oomoom22",
    ]
    # Made, connected and disconnected four times, removed; and the engine's own, by the containers of somebody else.
    networks = sequence(events, "network")
    assert (networks.count("network mfct-recorded"), networks.count("network none")) == (10, 4)
    assert (networks[0], networks[-1]) == ("network mfct-recorded", "network mfct-recorded")
    recorded = [json.loads(line) for line in (RECORDED / engine / "events.jsonl").read_bytes().splitlines()]
    sessions = {
        event["Actor"]["Attributes"]["name"]: event["Actor"]["Attributes"].get("dev.medforge.session")
        for event in recorded
        if event["Type"] == "container"
    }
    assert {"trap", "foreign"} < sessions.keys()  # they were recorded, and are not told
    for event in events:
        network = event.kind is ContainerEventKind.NETWORK
        assert event.session_id is None if network else str(event.session_id) == sessions[event.name]


@pytest.mark.parametrize("engine", ["20.10", "28.5"])
def test_another_installation_is_told_of_networks_only(engine: str) -> None:
    assert {event.kind for event in told(engine, "another")} == {ContainerEventKind.NETWORK}


def line(**changes: Any) -> bytes:
    attributes = {
        "dev.medforge.instance": "medforge",
        "dev.medforge.image": IMAGE,
        "dev.medforge.session": "6f1c1d0e-0000-4000-8000-000000000001",
        "image": IMAGE,
        "name": "one",
    }
    event = {"Type": "container", "Action": "die", "Actor": {"ID": "1", "Attributes": attributes}}
    for key, value in changes.items():
        if key in event:
            event[key] = value
        else:
            attributes[key] = value
    return json.dumps(event).encode()


def test_malformed_session_is_none() -> None:
    read = container_event(line(**{"dev.medforge.session": "nonsense"}), "medforge")

    assert read == ContainerEvent(ContainerEventKind.DIE, "one", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"Action": "exec_die"},
        {"Action": "create"},
        {"Action": "exec_start: die"},
        {"Action": "connect"},
        {"Type": "network", "Action": "die"},
        {"Type": "network", "Action": "prune"},
        {"Type": "image", "Action": "destroy"},
        {"image": "sha256:another"},
        {"image": ""},
        {"image": None},
        {"dev.medforge.instance": "another"},
        {"Actor": {}},
        {"Actor": None},
        {"Actor": {"Attributes": ["name"]}},
    ],
)
def test_what_does_not_concern_us(changes: dict[str, Any]) -> None:
    assert container_event(line(), "medforge") is not None

    assert container_event(line(**changes), "medforge") is None


@pytest.mark.parametrize(
    "senseless",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b"[" * 100_000,
        line()[:-1],
        line(Type=None),
        line(Action=["die"]),
        line(name=None),
        line(name=""),
        line(name=5),
        line(Type="network", Action="connect", name=None),
        line(Type="network", Action="create", Actor=None),
    ],
)
def test_senseless_lines(senseless: bytes) -> None:
    with pytest.raises(Senseless):
        container_event(senseless, "medforge")


def test_request_names_the_version_the_time_and_what_is_wanted() -> None:
    request = urlsplit(events_request("1.41", since=1795632090.25))

    assert request.path == "/v1.41/events"
    query = parse_qs(request.query, strict_parsing=True)
    assert query["since"] == ["1795632090.250000000"]
    assert json.loads(query["filters"][0]) == {
        "type": ["container", "network"],
        "event": ["connect", "create", "destroy", "die", "disconnect", "kill", "oom", "start"],
    }
