"""Owns the proof that a running session's container is as hard as the contract says: as the engine tells it, as the kernel
tells it from outside, and as it looks from inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from medforged.adapters.docker import DockerRuntime
from medforged.adapters.tcp import TcpReadiness
from medforged.domain.containers import IDE_PORT, ContainerInfo, ContainerSpec, ContainerState, NetworkSpec
from medforged.domain.errors import ContainerError
from tests.host import docker_world, tiny_image

pytestmark = pytest.mark.host

PROGRAM = "cat /proc/self/status > /tmp/status; cat /proc/self/limits > /tmp/limits; exec httpd -f -p 8080 -h /www"
# What the engine itself puts into every container, besides the one bind mount.
ENGINES_OWN_FILES = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/sbin/docker-init"}
HOST_FILE_SYSTEMS = {"ext4", "xfs", "btrfs", "zfs", "fuse", "fuseblk", "virtiofs", "9p"}


@dataclass(frozen=True)
class Hardened:
    """A running session's container, made by the adapter and looked at by other means."""

    spec: ContainerSpec
    info: ContainerInfo
    engine: dict[str, Any]
    network: NetworkSpec

    def inside(self, script: str) -> str:
        """What a shell in the container prints; errors are part of it."""
        return tiny_image.docker("exec", self.spec.name, "sh", "-c", f"exec 2>&1; {script}")

    @property
    def host(self) -> dict[str, Any]:
        part: dict[str, Any] = self.engine["HostConfig"]
        return part


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardened]:
    workspace = docker_world.workspace(tmp_path_factory.mktemp("workspace"))
    with docker_world.network() as network, docker_world.installation() as instance:

        async def start() -> tuple[ContainerSpec, ContainerInfo]:
            runtime = docker_world.runtime(instance)
            await runtime.ensure_network(network)
            spec = docker_world.spec(
                network.name, tiny_image.ensure("VOLUME /workspace").reference, workspace, program=PROGRAM
            )
            await runtime.create(spec)
            info = await runtime.start(spec.name)
            await runtime.close()
            return spec, info

        spec, info = asyncio.run(start())
        made = Hardened(spec, info, docker_world.inspected(spec.name), network)
        asyncio.run(docker_world.until(lambda: _is_there(made, "/tmp/limits")))
        yield made


async def _is_there(hardened: Hardened, path: str) -> bool:
    return hardened.inside(f"test -s {path} && echo yes || true") == "yes"


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    with docker_world.installation() as instance:
        runtime = docker_world.runtime(instance)
        yield runtime
        await runtime.close()


# As the engine tells it.


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("Privileged", [False]),
        ("CapAdd", [None, []]),
        ("CapDrop", [["ALL"]]),
        ("SecurityOpt", [["no-new-privileges:true"], ["no-new-privileges"]]),
        ("ReadonlyRootfs", [True]),
        ("IpcMode", ["private"]),
        ("CgroupnsMode", ["private"]),
        ("PidMode", [""]),
        ("UTSMode", [""]),
        ("UsernsMode", [""]),
        ("Binds", [None, []]),
        ("VolumesFrom", [None, []]),
        ("Devices", [None, []]),
        ("DeviceCgroupRules", [None, []]),
        ("DeviceRequests", [None, []]),
        ("GroupAdd", [None, []]),
        ("Links", [None, []]),
        ("ExtraHosts", [None, []]),
        ("Dns", [None, []]),
        ("PortBindings", [{}, None]),
        ("PublishAllPorts", [False]),
        ("AutoRemove", [False]),
        ("RestartPolicy", [{"Name": "no", "MaximumRetryCount": 0}]),
        ("Init", [True]),
        ("OomKillDisable", [False, None]),
        ("OomScoreAdj", [0]),
        ("LogConfig", [{"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}]),
        ("Memory", [docker_world.LIMITS.memory_bytes]),
        ("MemorySwap", [docker_world.LIMITS.memory_bytes]),
        ("ShmSize", [docker_world.LIMITS.shm_bytes]),
        ("PidsLimit", [docker_world.LIMITS.pids]),
        ("NanoCpus", [int(docker_world.LIMITS.cpus * 1e9)]),
    ],
)
def test_engine_says(hardened: Hardened, key: str, values: list[object]) -> None:
    assert hardened.host[key] in values


def test_engine_says_whose_it_is(hardened: Hardened) -> None:
    assert hardened.engine["Config"]["User"] == "1000:1000"
    assert hardened.engine["Config"]["Hostname"] == hardened.spec.name
    assert hardened.engine["Config"]["Labels"]["dev.medforge.slug"] == hardened.spec.slug
    assert hardened.engine["Config"]["Labels"]["dev.medforge.session"] == str(hardened.spec.session_id)


def test_workspace_is_the_only_mount_even_where_the_image_declares_it_a_volume(hardened: Hardened) -> None:
    (mount,) = hardened.engine["Mounts"]

    assert (mount["Type"], mount["Source"], mount["Destination"], mount["RW"]) == (
        "bind",
        str(hardened.spec.workspace),
        "/workspace",
        True,
    )


def test_engine_masks_what_it_masks_by_default(hardened: Hardened) -> None:
    assert {"/proc/kcore", "/sys/firmware"} <= set(hardened.host["MaskedPaths"])
    assert "/proc/sys" in hardened.host["ReadonlyPaths"]


def test_mandatory_access_control_stays_where_the_host_has_it(hardened: Hardened) -> None:
    options = json.loads(tiny_image.docker("info", "--format", "{{json .SecurityOptions}}"))

    assert any(option.startswith("name=seccomp") for option in options)
    expected = "docker-default" if any("apparmor" in option for option in options) else ""
    assert hardened.engine["AppArmorProfile"] == expected


def test_nothing_is_published(hardened: Hardened) -> None:
    assert tiny_image.docker("port", hardened.spec.name) == ""
    assert not any(hardened.engine["NetworkSettings"]["Ports"].values())


def test_it_is_on_one_network_with_an_address_of_the_range(hardened: Hardened) -> None:
    assert list(hardened.engine["NetworkSettings"]["Networks"]) == [hardened.network.name]
    assert hardened.info.address in hardened.network.dynamic_range


# As the kernel tells it.


@pytest.fixture(scope="module")
def status(hardened: Hardened) -> dict[str, str]:
    """What /proc said about the pack's own program (not about a process that was put beside it)."""
    return dict(line.split(":\t", 1) for line in hardened.inside("cat /tmp/status").splitlines() if ":\t" in line)


@pytest.mark.parametrize("capabilities", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_kernel_says_that_there_are_no_capabilities(status: dict[str, str], capabilities: str) -> None:
    assert int(status[capabilities], 16) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Uid", "1000\t1000\t1000\t1000"),
        ("Gid", "1000\t1000\t1000\t1000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ],
)
def test_kernel_says(status: dict[str, str], key: str, value: str) -> None:
    assert status[key] == value


def test_groups_that_the_image_gives_the_user_are_not_taken(status: dict[str, str]) -> None:
    assert set(status["Groups"].split()) <= {"1000"}  # the image's own file lists 0 and 2000 too


@pytest.mark.parametrize("namespace", ["cgroup", "ipc", "mnt", "net", "pid", "uts"])
def test_namespace_is_not_the_hosts(hardened: Hardened, namespace: str) -> None:
    own = str(Path(f"/proc/{hardened.info.process_id}/ns/{namespace}").readlink())

    assert own.startswith(f"{namespace}:[")
    assert own != str(Path(f"/proc/self/ns/{namespace}").readlink())


def test_first_process_is_an_init_that_reaps(hardened: Hardened) -> None:
    assert hardened.inside("cat /proc/1/comm") == "docker-init"
    # An orphan: its parent ends before it does.
    hardened.inside("(sleep 0.1 &) ; sleep 0.3")

    assert "Z" not in hardened.inside("ps -o stat").split()


def test_limits_of_the_control_group_are_those_of_the_specification(hardened: Hardened) -> None:
    limits = hardened.spec.limits
    if hardened.inside("test -f /sys/fs/cgroup/cgroup.controllers && echo v2 || true"):
        seen = hardened.inside("cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max").split()
        assert [int(value) for value in seen[:3]] == [limits.memory_bytes, 0, limits.pids]
        quota, period = seen[3:]
    else:
        files = "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max"
        files += " cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us"
        memory, both, processes, quota, period = hardened.inside(f"cd /sys/fs/cgroup; cat {files}").split()
        assert (int(memory), int(both), int(processes)) == (limits.memory_bytes, limits.memory_bytes, limits.pids)
    assert int(quota) / int(period) == limits.cpus


def test_limits_of_the_process(hardened: Hardened) -> None:
    lines = {line[:26].strip(): line[26:].split() for line in hardened.inside("cat /tmp/limits").splitlines()}

    assert lines["Max core file size"][:2] == ["1", "1"]
    assert lines["Max open files"][:2] == ["16384", "16384"]


# As it looks from inside.


def test_nothing_of_the_host_is_mounted_but_the_workspace(hardened: Hardened) -> None:
    mounts = [line.split(" ") for line in hardened.inside("cat /proc/self/mountinfo").splitlines()]
    from_host = {fields[4] for fields in mounts if fields[fields.index("-") + 1] in HOST_FILE_SYSTEMS}

    assert from_host == {"/workspace"} | ENGINES_OWN_FILES


def test_engines_socket_is_nowhere(hardened: Hardened) -> None:
    found = hardened.inside("for d in / /run /var/run /tmp /workspace; do ls $d/*.sock 2>/dev/null; done; true")

    assert found == ""
    assert "docker.sock" not in hardened.inside("cat /proc/self/mountinfo")


def test_image_cannot_be_written_to(hardened: Hardened) -> None:
    for path in ("/x", "/etc/passwd", "/bin/sh", "/www/x"):
        answer = hardened.inside(f"echo x >> {path} || true")
        assert "Read-only file system" in answer or "Permission denied" in answer
    (root,) = [line for line in hardened.inside("cat /proc/self/mounts").splitlines() if line.split()[1] == "/"]
    assert root.split()[3].split(",")[0] == "ro"


def test_workspace_and_temporary_files_can_be_written_to(hardened: Hardened) -> None:
    hardened.inside("echo kept > /workspace/kept; chmod 600 /workspace/kept")
    written = hardened.spec.workspace / "kept"

    assert written.read_text() == "kept\n"
    assert (written.stat().st_uid, written.stat().st_gid) == (1000, 1000)
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        assert hardened.inside(f"echo x > {directory}/x && cat {directory}/x") == "x"


@pytest.mark.parametrize(("directory", "mebibytes"), [("/tmp", 32), ("/var/tmp", 64), ("/dev/shm", 16)])
def test_temporary_files_are_bounded(hardened: Hardened, directory: str, mebibytes: int) -> None:
    blocks = int(hardened.inside(f"df -k {directory} | tail -n 1").split()[1])

    assert blocks == mebibytes * 1024


def test_programs_can_be_run_from_temporary_files_but_not_as_somebody_else(hardened: Hardened) -> None:
    assert hardened.inside("cp /bin/busybox /tmp/busybox; chmod 755 /tmp/busybox; /tmp/busybox echo ran") == "ran"
    options = [line.split()[3] for line in hardened.inside("cat /proc/self/mounts").splitlines() if " /tmp " in line]

    assert {"nosuid", "nodev"} <= set(options[0].split(","))


def test_devices_are_the_harmless_ones(hardened: Hardened) -> None:
    devices = set(
        hardened.inside("cd /dev; for d in *; do test ! -L $d -a \\( -b $d -o -c $d \\) && echo $d; done; true").split()
    )

    assert devices <= {"full", "null", "ptmx", "random", "tty", "urandom", "zero", "console"}


def test_privileged_things_are_refused(hardened: Hardened) -> None:
    for attempt in (
        "mount -t tmpfs none /workspace",
        "mount -o remount,rw /",
        "umount /workspace",
        "hostname other",
        "ip link set eth0 down",
        "chmod 777 /etc",
        "echo 1 > /proc/sys/kernel/panic",
        "kill -9 1",
        "ln -s x /sys/fs/cgroup/x",
    ):
        answer = hardened.inside(f"{attempt} && echo DONE || true")
        assert "DONE" not in answer or attempt.startswith("kill"), attempt
    # Its own init may be signalled and is protected by the kernel: the container is still there.
    assert hardened.inside("echo alive") == "alive"


def test_there_is_no_ipv6_but_the_loopbacks(hardened: Hardened) -> None:
    addresses = hardened.inside("cat /proc/net/if_inet6 2>/dev/null; true").splitlines()

    assert [line for line in addresses if line.split()[-1] != "lo"] == []


def test_names_are_resolved_by_the_engine(hardened: Hardened) -> None:
    assert "nameserver 127.0.0.11" in hardened.inside("cat /etc/resolv.conf")


def test_program_answers_the_host(hardened: Hardened) -> None:
    assert hardened.info.address is not None
    asyncio.run(TcpReadiness().wait(hardened.info.address, IDE_PORT, 20))


# What the limits do.


async def started(
    runtime: DockerRuntime, network: NetworkSpec, workspace: Path, program: str, **changes: Any
) -> ContainerInfo:
    await runtime.ensure_network(network)
    spec = docker_world.spec(network.name, tiny_image.ensure().reference, workspace, program=program, **changes)
    await runtime.create(spec)
    return await runtime.start(spec.name)


async def ended(runtime: DockerRuntime, name: str) -> ContainerInfo:
    async def has_ended() -> bool:
        return (await runtime.inspect(name)).state is ContainerState.EXITED

    await docker_world.until(has_ended)
    return await runtime.inspect(name)


async def test_memory_that_runs_out_ends_the_container_and_is_told(
    hardened: Hardened, runtime: DockerRuntime, tmp_path: Path
) -> None:
    workspace = docker_world.workspace(tmp_path)
    # The pause lets `start` see it run; `tail` keeps everything that has no line end.
    info = await started(runtime, hardened.network, workspace, "sleep 1; exec tail /dev/zero")

    seen = await ended(runtime, info.name)

    assert (seen.exit_code, seen.oom_killed) == (137, True)


async def test_processes_are_counted(hardened: Hardened, runtime: DockerRuntime, tmp_path: Path) -> None:
    workspace = docker_world.workspace(tmp_path)
    program = (
        "sh -c 'i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i+1)); done'; exec sleep 1000"  # the inner one fails
    )

    info = await started(runtime, hardened.network, workspace, program, limits=replace(docker_world.LIMITS, pids=20))

    async def full() -> bool:
        return len(tiny_image.docker("top", info.name).splitlines()) - 1 >= 18

    await docker_world.until(full)
    assert len(tiny_image.docker("top", info.name).splitlines()) - 1 <= 20


async def test_crash_leaves_no_core_file(hardened: Hardened, runtime: DockerRuntime, tmp_path: Path) -> None:
    workspace = docker_world.workspace(tmp_path)
    info = await started(
        runtime, hardened.network, workspace, "cd /workspace; sleep 1; sh -c 'kill -SEGV $$'; echo $? > crashed; exit 4"
    )

    assert (await ended(runtime, info.name)).exit_code == 4
    assert (tmp_path / "crashed").read_text() == "139\n"
    assert os.listdir(tmp_path) == ["crashed"]  # noqa: PTH208 - a path object's own listing is for threads, ruff says


# Its end.


async def test_program_is_asked_to_end_and_gets_its_grace(
    hardened: Hardened, runtime: DockerRuntime, tmp_path: Path
) -> None:
    workspace = docker_world.workspace(tmp_path)
    program = "trap 'sleep 0.3; echo bye > /workspace/bye; exit 5' TERM; echo > /workspace/ready; while :; do sleep 0.05; done"
    info = await started(runtime, hardened.network, workspace, program)
    await docker_world.until(lambda: _exists(tmp_path / "ready"))

    await runtime.stop(info.name, 10)

    assert (tmp_path / "bye").read_text() == "bye\n"
    assert (await runtime.inspect(info.name)).exit_code == 5


async def test_program_that_does_not_want_to_end_is_killed_after_its_grace(
    hardened: Hardened, runtime: DockerRuntime, tmp_path: Path
) -> None:
    workspace = docker_world.workspace(tmp_path)
    program = "trap '' TERM; echo > /workspace/ready; while :; do sleep 0.05; done"
    info = await started(runtime, hardened.network, workspace, program)
    await docker_world.until(lambda: _exists(tmp_path / "ready"))
    loop = asyncio.get_running_loop()
    began = loop.time()

    await runtime.stop(info.name, 0.5)

    assert 0.9 < loop.time() - began < 10  # the engine counts whole seconds
    assert (await runtime.inspect(info.name)).exit_code == 137


async def test_paused_container_counts_as_running_and_can_be_stopped(
    hardened: Hardened, runtime: DockerRuntime, tmp_path: Path
) -> None:
    info = await started(runtime, hardened.network, docker_world.workspace(tmp_path), "exec sleep 1000")
    tiny_image.docker("pause", info.name)

    assert await runtime.inspect(info.name) == info
    with pytest.raises(ContainerError, match="somebody has paused it"):
        await runtime.start(info.name)
    await runtime.stop(info.name, 1)

    assert (await runtime.inspect(info.name)).state is ContainerState.EXITED


async def _exists(path: Path) -> bool:
    return path.exists()  # noqa: ASYNC240 - a look at a local directory


# What is mounted later.


async def test_dataset_that_is_mounted_later_appears_inside(
    hardened: Hardened, runtime: DockerRuntime, shared_place: Path
) -> None:
    info = await started(runtime, hardened.network, shared_place, "exec sleep 1000")
    (mount,) = docker_world.inspected(info.name)["Mounts"]
    assert mount["Propagation"] == "rslave"

    with mounted("-t", "tmpfs", "-o", "uid=1000,gid=1000,size=1m", "later", str(shared_place)):
        (shared_place / "from-host").write_text("seen\n")

        assert tiny_image.docker("exec", info.name, "cat", "/workspace/from-host") == "seen"
        tiny_image.docker("exec", info.name, "sh", "-c", "echo back > /workspace/from-inside")
        assert (shared_place / "from-inside").read_text() == "back\n"

    assert tiny_image.docker("exec", info.name, "sh", "-c", "ls /workspace") == ""
    await runtime.remove(info.name)


@pytest.fixture
def shared_place(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a shared mount of its own, as every directory is on a host under systemd."""
    place = tmp_path / "place"
    place.mkdir()
    docker_world.workspace(place)
    with mounted("--bind", str(place), str(place)):
        subprocess.run(["mount", "--make-shared", place], check=True)
        yield place


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount with these arguments, the last of which is the mount point."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)
