"""Owns the tests of the request that creates a session's container: each line of the hardening, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.docker.creation import GpuInjection, check_name, creation_request
from medforged.adapters.docker.mounts import Propagation
from medforged.domain.containers import ContainerLimits, ContainerSpec
from medforged.domain.errors import ContainerError
from tests.fakes.containers import container_spec

pytestmark = pytest.mark.unit

IMAGE_ID = f"sha256:{'cd' * 32}"
LIMITS = ContainerLimits(memory_bytes=8 << 30, shm_bytes=1 << 30, cpus=3.5, pids=512)
SPEC = container_spec(workspace=Path("/tank/ws/one"), limits=LIMITS, environment=(("MEDFORGE_TIER", "PUBLIC"),))
REAL = replace(
    SPEC, gpu_uuid="GPU-1b2c", gpu_simulated=False, environment=(("NVIDIA_VISIBLE_DEVICES", "GPU-1b2c"), ("A", "b"))
)


def request(
    spec: ContainerSpec = SPEC,
    *,
    propagation: Propagation = Propagation.SLAVE,
    injection: GpuInjection | None = GpuInjection.CDI,
) -> dict[str, Any]:
    return creation_request(spec, instance="medforge", image_id=IMAGE_ID, propagation=propagation, injection=injection)


def test_nothing_but_what_is_meant_is_asked_for() -> None:
    made = request()

    assert set(made) == {
        "Image", "User", "Hostname", "Env", "Labels", "StopSignal", "Healthcheck", "Tty", "OpenStdin",
        "HostConfig", "NetworkingConfig",
    }  # fmt: skip
    assert set(made["HostConfig"]) == {
        "NetworkMode", "PortBindings", "PublishAllPorts", "Privileged", "CapAdd", "CapDrop", "SecurityOpt", "IpcMode",
        "CgroupnsMode", "PidMode", "UTSMode", "UsernsMode", "Init", "ReadonlyRootfs", "Mounts", "Tmpfs", "Memory",
        "MemorySwap", "ShmSize", "PidsLimit", "NanoCpus", "Ulimits", "RestartPolicy", "LogConfig", "DeviceRequests",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Image", IMAGE_ID),
        ("User", "1000:1000"),
        ("Hostname", "mf-session-abcd2345"),
        ("StopSignal", "SIGTERM"),
        ("Healthcheck", {"Test": ["NONE"]}),
        ("Tty", False),
        ("OpenStdin", False),
        ("NetworkingConfig", {"EndpointsConfig": {"fake-sessions": {}}}),
        ("Env", ["NVIDIA_VISIBLE_DEVICES=GPU-simulated", "MEDFORGE_TIER=PUBLIC"]),
        (
            "Labels",
            {
                "dev.medforge.instance": "medforge",
                "dev.medforge.session": str(SPEC.session_id),
                "dev.medforge.slug": "abcd2345",
                "dev.medforge.image": IMAGE_ID,
            },
        ),
    ],
)
def test_container(key: str, value: object) -> None:
    assert request()[key] == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NetworkMode", "fake-sessions"),
        ("PortBindings", {}),
        ("PublishAllPorts", False),
        ("Privileged", False),
        ("CapAdd", []),
        ("CapDrop", ["ALL"]),
        ("SecurityOpt", ["no-new-privileges:true"]),
        ("IpcMode", "private"),
        ("CgroupnsMode", "private"),
        ("PidMode", ""),
        ("UTSMode", ""),
        ("UsernsMode", ""),
        ("Init", True),
        ("ReadonlyRootfs", True),
        ("Memory", 8 << 30),
        ("MemorySwap", 8 << 30),
        ("ShmSize", 1 << 30),
        ("PidsLimit", 512),
        ("NanoCpus", 3_500_000_000),
        ("RestartPolicy", {"Name": "no"}),
        ("LogConfig", {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}),
        ("DeviceRequests", []),
    ],
)
def test_host_part(key: str, value: object) -> None:
    assert request()["HostConfig"][key] == value


@pytest.mark.parametrize("propagation", list(Propagation))
def test_workspace_is_the_only_mount(propagation: Propagation) -> None:
    assert request(propagation=propagation)["HostConfig"]["Mounts"] == [
        {
            "Type": "bind",
            "Source": "/tank/ws/one",
            "Target": "/workspace",
            "ReadOnly": False,
            "BindOptions": {"Propagation": propagation.value},
        }
    ]


def test_temporary_files_are_in_memory_and_bounded() -> None:
    temporary = request()["HostConfig"]["Tmpfs"]

    assert set(temporary) == {"/tmp", "/var/tmp"}
    assert temporary["/tmp"] == f"rw,exec,nosuid,nodev,mode=1777,size={4 << 30}"
    assert "nosuid,nodev" in temporary["/var/tmp"]


def test_no_core_dump_reaches_the_hosts_handler_and_many_files_may_be_open() -> None:
    limits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in request()["HostConfig"]["Ulimits"]}

    assert limits == {"core": (1, 1), "nofile": (16384, 16384)}


def test_simulated_gpu_is_asked_of_nobody() -> None:
    assert request(injection=None)["HostConfig"]["DeviceRequests"] == []
    assert request(injection=GpuInjection.HOOK)["HostConfig"]["DeviceRequests"] == []


def test_real_gpu_by_cdi() -> None:
    assert request(REAL)["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1b2c"]}
    ]


def test_real_gpu_by_hook() -> None:
    assert request(REAL, injection=GpuInjection.HOOK)["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-1b2c"], "Capabilities": [["gpu", "compute", "utility"]]}
    ]


def test_real_gpu_needs_a_way() -> None:
    with pytest.raises(ContainerError, match="no way to pass a real GPU"):
        request(REAL, injection=None)


@pytest.mark.parametrize(
    "environment", [(), (("NVIDIA_VISIBLE_DEVICES", "all"),), (("NVIDIA_VISIBLE_DEVICES", "GPU-other"),)]
)
@pytest.mark.parametrize("spec", [SPEC, REAL])
def test_environment_that_does_not_name_the_one_gpu_is_refused(
    spec: ContainerSpec, environment: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(ContainerError, match="NVIDIA_VISIBLE_DEVICES is"):
        request(replace(spec, environment=environment))


@pytest.mark.parametrize("value", ["", "a=b", "two\nlines", "LD_PRELOAD=/x\n", "ü", "$(id)", "'\"\\"])
def test_value_of_a_variable_is_passed_as_it_is(value: str) -> None:
    spec = replace(SPEC, environment=(*SPEC.environment, ("X", value)))

    assert request(spec)["Env"] == [*request()["Env"], f"X={value}"]


@pytest.mark.parametrize("variable", [("A=B", "c"), ("", "c"), ("A\nB", "c"), ("1A", "c"), ("A B", ""), ("A", "x\0y")])
def test_variable_that_could_become_another_is_refused(variable: tuple[str, str]) -> None:
    with pytest.raises(ContainerError, match="not a usable environment variable"):
        request(replace(SPEC, environment=(*SPEC.environment, variable)))


def test_variable_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ContainerError, match="not a usable environment variable"):
        request(replace(SPEC, environment=(*SPEC.environment, ("A", "1"), ("A", "2"))))


def test_workspace_that_depends_on_a_working_directory_is_refused() -> None:
    with pytest.raises(ContainerError, match="not an absolute path"):
        request(replace(SPEC, workspace=Path("ws/one")))


@pytest.mark.parametrize("name", ["mf-session-abcd2345", "medforge-public-sessions", "a.b_c-1"])
def test_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a", "../images/json", "a/b", "a?x=1", "a#b", "-a", ".a", "a b", "ä1", "a%2fb", "x" * 64, "ab\n"]
)
def test_name_that_could_climb_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(ContainerError, match="cannot use"):
        check_name(name)
    with pytest.raises(ContainerError, match="cannot use"):
        request(replace(SPEC, name=name))
