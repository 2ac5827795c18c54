"""Owns the tests of the daemon's sentences for what goes wrong in the engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
from docker.errors import APIError, DockerException

from medforged.adapters.docker.failures import is_absent, translated
from medforged.domain.errors import ContainerError, ContainerUnavailable

pytestmark = pytest.mark.unit

RECORDED = Path(__file__).parents[3] / "fixtures" / "docker"
SOCKET = Path("/var/run/docker.sock")
REFUSALS = [
    (engine, what, status, sentence)
    for engine in ("20.10", "28.5")
    for what, (status, sentence) in json.loads(
        (RECORDED / engine / "refusals.json").read_text(encoding="utf-8")
    ).items()
]
MEANINGS = {
    "network overlaps": "another network of the container engine uses these addresses; remove it",
    "network bridge taken": "another network of the container engine uses this bridge; remove it",
    "no network": "its network does not exist; restart medforged",
    "too many cpus": "more CPUs than this host has; lower it",
    "too little memory": "too little memory; raise it",
    "no workspace": "the workspace's directory is not on the host; check",
    "private mount": "mount --make-rshared /",
    "no nvidia runtime": "install nvidia-container-toolkit",
    "no cdi device": "run `nvidia-ctk cdi generate",
    "rlimit": "raise LimitNOFILE",
    "no entrypoint": "check the pack's entry point",
    "addresses used up": "every address of its network is in use; stop sessions",
    "paused": "run `docker unpause`",
}
# These are recognized by whoever made the request, who knows what to do about them.
HANDLED = {"network exists", "no image", "name taken", "no container"}


def refusal(status: int, sentence: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    return APIError("refused", response=response, explanation=sentence)


@pytest.mark.parametrize(("engine", "what", "status", "sentence"), REFUSALS)
def test_recorded_refusal_has_its_remedy(engine: str, what: str, status: int, sentence: str) -> None:
    failure = translated("start container x", refusal(status, sentence), SOCKET)

    assert type(failure) is ContainerError
    assert str(failure).startswith("cannot start container x: ")
    if what in HANDLED:
        assert sentence[:300] in str(failure)
    else:
        assert MEANINGS[what] in str(failure)
        assert "refused it" not in str(failure)


def test_every_meaning_is_recorded() -> None:
    assert {what for _, what, _, _ in REFUSALS} == set(MEANINGS) | HANDLED


@pytest.mark.parametrize(
    ("sentence", "remedy"),
    [
        ("mkdir /var/lib/docker/overlay2/ab: no space left on device", "docker image prune"),
        ('exec: "docker-init": executable file not found in $PATH', "Debian: tini"),
        (
            "connection error: desc = transport: error while dialing: dial unix /run/containerd/containerd.sock",
            "systemctl status containerd",
        ),
    ],
)
def test_refusal_that_cannot_be_provoked_here(sentence: str, remedy: str) -> None:
    assert remedy in str(translated("create container x", refusal(500, sentence), SOCKET))


def test_unknown_refusal_is_passed_on_in_one_bounded_line() -> None:
    failure = translated("create container x", refusal(500, "one\ntwo  three" + "!" * 2000), SOCKET)

    assert str(failure).startswith("cannot create container x: the container engine refused it (500): one two three!")
    assert len(str(failure)) < 500
    assert "\n" not in str(failure)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (FileNotFoundError(2, "No such file or directory"), "nothing listens at /var/run/docker.sock; start"),
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens at /var/run/docker.sock; start"),
        (PermissionError(13, "Permission denied"), "no permission for /var/run/docker.sock; run medforged as root"),
        (TimeoutError("timed out"), "did not answer in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "the connection .* failed"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_engine_that_cannot_be_reached_is_unavailable(cause: Exception, words: str, packed: bool) -> None:
    error: Exception
    if packed:  # as requests hands on what urllib3 packed into its own exceptions
        error = requests.exceptions.ConnectionError("Connection aborted.", cause)
    else:
        error = DockerException("Error while fetching server API version")
        error.__cause__ = cause

    failure = translated("list containers", error, SOCKET)

    assert isinstance(failure, ContainerUnavailable)
    assert str(failure).startswith("cannot list containers: ")
    with pytest.raises(ContainerUnavailable, match=words):
        raise failure


def test_timeout_is_unavailable() -> None:
    failure = translated("list containers", requests.exceptions.ReadTimeout("read timed out"), SOCKET)

    assert isinstance(failure, ContainerUnavailable)
    assert "did not answer in time" in str(failure)


@pytest.mark.parametrize(("what", "absent"), [("no container", True), ("no network", False), ("no image", False)])
@pytest.mark.parametrize("engine", ["20.10", "28.5"])
def test_missing_container_is_told_from_other_things_that_are_not_found(engine: str, what: str, absent: bool) -> None:
    status, sentence = next((status, words) for at, name, status, words in REFUSALS if (at, name) == (engine, what))

    assert status == 404
    assert is_absent(refusal(status, sentence), "container") is absent
