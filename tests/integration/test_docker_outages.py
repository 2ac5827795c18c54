"""Owns the tests of the Docker adapter against an engine that is away, hangs, or answers nonsense."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from medforged.adapters.docker import DockerRuntime, GpuInjection
from medforged.domain.containers import ContainerInfo, ContainerState, ContainerSummary, container_name
from medforged.domain.errors import ContainerError, ContainerUnavailable
from tests.fakes.containers import container_spec
from tests.integration.fake_engine import INFO, VERSION, FakeEngine

pytestmark = [
    pytest.mark.integration,
    # docker-py leaves a socket that could not be connected to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

IMAGE = f"sha256:{'ab' * 32}"
NAME = container_name("abcd2345")
OTHER = container_name("wxyz2345")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What this module leaves to the garbage collector is collected while its warnings are expected."""
    yield
    gc.collect()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "docker.sock")
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def runtime(engine: FakeEngine) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(socket=engine.socket, threads=3, question_seconds=0.5, action_seconds=0.5)
    yield runtime
    engine.release()
    await runtime.close()


def container(name: str) -> dict[str, Any]:
    labels = {
        "dev.medforge.instance": "medforge",
        "dev.medforge.image": IMAGE,
        "dev.medforge.session": "6f1c1d0e-0000-4000-8000-000000000001",
    }
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Image": IMAGE,
        "State": {"Status": "running", "Pid": 4711},
        "Config": {"Labels": labels},
        "HostConfig": {"NetworkMode": "n"},
        "NetworkSettings": {"Networks": {"n": {"IPAddress": "172.28.16.5"}}},
    }


def listed(name: str) -> dict[str, Any]:
    """The same in a listing."""
    found = container(name)
    labels = found["Config"]["Labels"]
    return {"Id": found["Id"], "Names": [f"/{name}"], "ImageID": IMAGE, "Labels": labels, "State": "running"}


def listed_without_image() -> dict[str, Any]:
    return {key: value for key, value in listed(NAME).items() if key != "ImageID"}


async def longest_pause(stop: asyncio.Event) -> float:
    """How long the event loop was ever kept from running, in seconds."""
    worst, last = 0.0, time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    return worst


async def test_engine_that_accepts_and_never_answers(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(64)  # the kernel accepts; nobody ever reads
        runtime = DockerRuntime(socket=path, question_seconds=0.3, action_seconds=0.3)
        ended = asyncio.Event()
        watching = asyncio.create_task(longest_pause(ended))
        began = time.perf_counter()

        outcomes = await asyncio.gather(
            runtime.ping(),
            runtime.inspect(NAME),
            runtime.create(container_spec(image=IMAGE)),
            runtime.containers(),
            runtime.stop(OTHER, 0),
            return_exceptions=True,
        )

        took = time.perf_counter() - began
        ended.set()
        assert [type(outcome) for outcome in outcomes] == [ContainerUnavailable] * 5
        assert all("did not answer" in str(outcome) and "systemctl" in str(outcome) for outcome in outcomes)
        assert took < 3.5  # the stop waits longest: its limit, a grace of a second, and the slack
        assert await watching < 0.2
        await runtime.close()


def test_process_can_end_while_a_call_hangs(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    program = f"""
import asyncio, pathlib
from medforged.adapters.docker import DockerRuntime
async def main():
    runtime = DockerRuntime(socket=pathlib.Path({str(path)!r}), question_seconds=600)
    try:
        async with asyncio.timeout(0.2):
            await runtime.ping()
    except TimeoutError:
        await runtime.close()
        print("given up")
asyncio.run(main())
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True)

    assert ended.stdout == b"given up\n"


async def test_container_that_hangs_inside_the_engine_holds_up_nobody_else(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    for name in (NAME, OTHER):
        engine.answers[f"GET /containers/{name}/json"] = (200, container(name))
    engine.hang(rf"/containers/{NAME}/")
    # More of them than there are threads: they share two, one for looking and one for changing.
    hung = [asyncio.create_task(runtime.inspect(NAME)) for _ in range(10)]
    hung += [asyncio.create_task(runtime.remove(NAME)) for _ in range(10)]  # type: ignore[arg-type]
    await engine.arrived(lambda line: NAME in line, 2)

    for _ in range(20):
        assert (await runtime.inspect(OTHER)).process_id == 4711

    outcomes = await asyncio.gather(*hung, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ContainerUnavailable}


async def test_call_that_was_given_up_never_reaches_the_engine(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.answers[f"GET /containers/{NAME}/json"] = (200, container(NAME))
    engine.hang(r"GET /containers/")
    first = asyncio.create_task(runtime.remove(NAME))
    await engine.arrived(lambda line: line.startswith("GET /containers/"))
    second = asyncio.create_task(runtime.create(container_spec(image=IMAGE)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)

    engine.release()
    await runtime.inspect(NAME)
    with pytest.raises(ContainerError):
        await runtime.remove(NAME)  # after it in the same lane; this engine knows no removal

    assert not any(line.startswith("POST") for line in engine.requests)


async def test_engine_that_is_not_there(tmp_path: Path) -> None:
    runtime = DockerRuntime(socket=tmp_path / "absent.sock")
    assert "not connected" in runtime.describe().reason

    with pytest.raises(ContainerUnavailable, match=r"nothing listens at .*absent\.sock; start the container engine"):
        await runtime.ping()

    await runtime.close()


async def test_engine_that_has_gone_and_left_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
    runtime = DockerRuntime(socket=path)

    with pytest.raises(ContainerUnavailable, match="nothing listens at"):
        await runtime.ping()

    await runtime.close()


async def test_engine_that_comes_back_is_met_anew(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.answers["GET /_ping"] = (200, "OK")
    await runtime.ping()
    assert "Docker 99.0, API 1.41" in runtime.describe().reason
    assert runtime.describe().reason.endswith("GPUs by hook")
    await engine.stop()
    with pytest.raises(ContainerUnavailable):
        await runtime.ping()
    assert "not connected" in runtime.describe().reason

    engine.answers["GET /version"] = (
        200,
        VERSION | {"Version": "100.1", "ApiVersion": "1.50", "MinAPIVersion": "1.24"},
    )
    engine.answers["GET /info"] = (200, INFO | {"CDISpecDirs": ["/etc/cdi"]})
    await engine.start()
    await runtime.ping()

    assert "Docker 100.1, API 1.44" in runtime.describe().reason
    assert runtime.describe().reason.endswith("GPUs by cdi")


async def test_engine_without_cdi_gets_a_real_gpu_by_the_hook_unless_told_otherwise(engine: FakeEngine) -> None:
    runtime = DockerRuntime(socket=engine.socket, gpu_injection=GpuInjection.CDI)
    engine.answers["GET /_ping"] = (200, "OK")

    await runtime.ping()

    assert runtime.describe().reason.endswith("GPUs by cdi")
    await runtime.close()


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", b'{"ApiVersion": 5}', b"null"])
async def test_something_else_than_an_engine(engine: FakeEngine, runtime: DockerRuntime, body: bytes) -> None:
    engine.answers["GET /version"] = (200, body)

    with pytest.raises(ContainerError, match="cannot "):
        await runtime.ping()


async def test_engine_that_is_too_old(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.answers["GET /version"] = (200, VERSION | {"ApiVersion": "1.40"})

    with pytest.raises(ContainerError, match=r"API 1\.40 is too old"):
        await runtime.ping()


async def test_engine_that_maps_user_ids_gets_no_session(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.answers["GET /info"] = (200, {"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]})

    with pytest.raises(ContainerError, match="take userns-remap out"):
        await runtime.create(container_spec(image=IMAGE))


async def test_disk_that_is_full(engine: FakeEngine, runtime: DockerRuntime) -> None:
    words = "mkdir /var/lib/docker/overlay2/0a1b: no space left on device"
    engine.answers[f"GET /images/{IMAGE}/json"] = (200, {"Id": IMAGE})
    engine.answers["POST /containers/create"] = (500, {"message": words})

    with pytest.raises(ContainerError, match=r"cannot create container .*: the disk of the container engine is full"):
        await runtime.create(container_spec(image=IMAGE))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"Id": None, "Name": f"/{NAME}"},
        {"Id": "ab", "Name": f"/{OTHER}"},
        container(NAME) | {"State": {"Status": "levitating"}},
        container(NAME) | {"State": 5},
    ],
)
async def test_answer_that_makes_no_sense_is_unknown_and_not_missing(
    engine: FakeEngine, runtime: DockerRuntime, answer: Any
) -> None:
    engine.answers[f"GET /containers/{NAME}/json"] = (200, answer)

    assert (await runtime.inspect(NAME)).state is ContainerState.UNKNOWN


async def test_container_that_was_found_by_the_beginning_of_its_id_is_another(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    engine.answers["GET /containers/abcd2345/json"] = (200, container(OTHER) | {"Id": "abcd2345" + "0" * 56})

    assert await runtime.inspect("abcd2345") == ContainerInfo("abcd2345", ContainerState.MISSING)


async def test_stop_after_which_the_container_still_runs_is_an_error(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    found = container(NAME)
    engine.answers[f"GET /containers/{NAME}/json"] = (200, found)
    engine.answers[f"GET /containers/{found['Id']}/json"] = (200, found)
    engine.answers[f"POST /containers/{found['Id']}/stop"] = (204, b"")

    with pytest.raises(ContainerError, match=f"cannot stop container {NAME}: its processes did not end when killed"):
        await runtime.stop(NAME, 0)


async def test_removal_that_somebody_else_has_begun_is_waited_for(engine: FakeEngine, runtime: DockerRuntime) -> None:
    found = container(NAME)
    words = f"removal of container {found['Id']} is already in progress"
    engine.answers[f"GET /containers/{NAME}/json"] = (200, found)
    engine.answers[f"DELETE /containers/{found['Id']}"] = (409, {"message": words})
    engine.answers[f"POST /containers/{found['Id']}/wait"] = (200, {"StatusCode": 0})

    await runtime.remove(NAME)

    assert engine.requests[-1] == f"POST /containers/{found['Id']}/wait"


async def test_actions_go_to_the_id_that_was_looked_at(engine: FakeEngine, runtime: DockerRuntime) -> None:
    found = container(NAME)
    engine.answers[f"GET /containers/{NAME}/json"] = (200, found)
    engine.answers[f"DELETE /containers/{found['Id']}"] = (204, b"")

    await runtime.remove(NAME)

    assert [line for line in engine.requests if not line.startswith("GET")] == [f"DELETE /containers/{found['Id']}"]


async def test_session_takes_three_requests_to_be_created_and_started(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    found, spec = container(NAME), container_spec(image=IMAGE)
    engine.answers |= {
        f"GET /images/{IMAGE}/json": (200, {"Id": IMAGE}),
        "POST /containers/create": (201, {"Id": found["Id"]}),
        f"POST /containers/{found['Id']}/start": (204, b""),
        f"GET /containers/{found['Id']}/json": (200, found),
    }
    await runtime.resolve_image(IMAGE)
    engine.requests.clear()

    await runtime.resolve_image(IMAGE)
    await runtime.create(spec)
    info = await runtime.start(NAME)

    assert info.process_id == 4711
    assert engine.requests == [
        "POST /containers/create",
        f"POST /containers/{found['Id']}/start",
        f"GET /containers/{found['Id']}/json",
    ]


async def test_any_number_of_containers_takes_one_question_to_be_listed(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    names = [f"mf-session-{number:08}" for number in range(500)]
    engine.answers["GET /_ping"] = (200, "OK")
    await runtime.ping()
    engine.requests.clear()
    engine.answers["GET /containers/json"] = (200, [listed(name) for name in reversed(names)])

    found = await runtime.containers()

    assert engine.requests == ["GET /containers/json"]
    assert [summary.name for summary in found] == names
    assert set(found) == {
        ContainerSummary(name, f"id-of-{name}", ContainerState.RUNNING, UUID("6f1c1d0e-0000-4000-8000-000000000001"))
        for name in names
    }


@pytest.mark.parametrize("answer", [None, {}, [None], [{}], [listed_without_image()]])
async def test_listing_that_makes_no_sense_is_an_error_and_not_an_empty_one(
    engine: FakeEngine, runtime: DockerRuntime, answer: Any
) -> None:
    engine.answers["GET /containers/json"] = (200, answer)

    with pytest.raises(ContainerError, match="cannot read what the container engine says about its containers"):
        await runtime.containers()


async def test_removed_image_is_noticed_when_it_is_needed(engine: FakeEngine, runtime: DockerRuntime) -> None:
    engine.answers[f"GET /images/{IMAGE}/json"] = (200, {"Id": IMAGE})
    await runtime.resolve_image(IMAGE)
    del engine.answers[f"GET /images/{IMAGE}/json"]
    engine.answers["POST /containers/create"] = (404, {"message": f"No such image: {IMAGE}"})

    with pytest.raises(ContainerError, match="has been removed from this host; pull or build it again"):
        await runtime.create(container_spec(image=IMAGE))
    with pytest.raises(ContainerError, match="not on this host"):
        await runtime.resolve_image(IMAGE)


async def test_container_that_was_replaced_behind_our_back_is_looked_up_again(
    engine: FakeEngine, runtime: DockerRuntime
) -> None:
    first, second = container(NAME), container(NAME) | {"Id": "another"}
    engine.answers |= {
        f"GET /images/{IMAGE}/json": (200, {"Id": IMAGE}),
        "POST /containers/create": (201, {"Id": first["Id"]}),
        f"POST /containers/{first['Id']}/start": (404, {"message": f"No such container: {first['Id']}"}),
        f"GET /containers/{NAME}/json": (200, second),
        "POST /containers/another/start": (204, b""),
        "GET /containers/another/json": (200, second),
    }
    await runtime.create(container_spec(image=IMAGE))

    assert (await runtime.start(NAME)).id == "another"
