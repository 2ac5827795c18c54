"""What an operator gets wrong: each ends in one clear sentence, a documented exit code, and nothing half-made."""

from __future__ import annotations

import grp
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.host.installation import PORT, ROOT, SUBNET, Installation, docker

pytestmark = pytest.mark.host

UNAVAILABLE, NO_PERMISSION, CONFIG, FAILED = 69, 77, 78, 1
PINNED = f"pack@sha256:{'0' * 64}"


def medforged(
    directory: Path, toml: str = "", *arguments: str, env: dict[str, str] | None = None, user: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a daemon of its own in a scratch directory; it must end by itself."""
    config = directory / "medforged.toml"
    config.write_text(toml)
    defaults = {
        "MEDFORGED_DAEMON__SOCKET": str(directory / "run" / "medforged.sock"),
        "MEDFORGED_DAEMON__STATE_DIRECTORY": str(directory / "state"),
        # A bare host has no group of operators yet.
        "MEDFORGED_DAEMON__SOCKET_GROUP": "",
        "MEDFORGED_DAEMON__INSTANCE": "mfbad",
        "MEDFORGED_NETWORK__NAME": "mfbad-public-sessions",
        "MEDFORGED_NETWORK__BRIDGE": "mf-mfbad",
        "MEDFORGED_NETWORK__SUBNET": "172.29.251.0/24",
        "MEDFORGED_NETWORK__PROXY_ADDRESS": "172.29.251.2",
        "MEDFORGED_WORKSPACES__DIRECTORY": str(directory / "workspaces"),
        "MEDFORGED_ADAPTERS__WORKSPACES": "directories",
    }
    become = ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups"] if user else []
    return subprocess.run(
        [*become, str(ROOT / ".venv/bin/medforged"), "--config", str(config), *arguments],
        env={**os.environ, **defaults, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def is_one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of standard error; what precedes it may only be log lines."""
    *before, last = done.stderr.strip().splitlines()
    assert all(line.startswith("{") or " [info" in line for line in before), done.stderr
    assert last.startswith("medforged: ")
    assert "Traceback" not in done.stderr
    return last


def nothing_is_left(directory: Path) -> None:
    assert not (directory / "run" / "medforged.sock").exists()
    assert "mfbad-public-sessions" not in docker("network", "ls", "--format", "{{.Name}}").split()


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[daemon]\nsokcet = '/x'\n", "medforged.toml:2: unknown key daemon.sokcet; the keys of [daemon] are"),
        ("[deamon]\n", "medforged.toml:1: unknown section [deamon]; the sections are"),
        ("[containers]\npids = 'many'\n", "medforged.toml:2: containers.pids: Expected `int`"),
        ("[containers\n", "cannot read the configuration"),
        ("[packs]\ndefault_image = 'pack:latest'\n", "is not pinned by digest"),
    ],
)
def test_a_wrong_configuration(tmp_path: Path, toml: str, told: str) -> None:
    done = medforged(tmp_path, toml)
    assert done.returncode == CONFIG
    assert told in is_one_sentence(done)
    nothing_is_left(tmp_path)
    assert not (tmp_path / "state").exists()


def test_a_configuration_can_be_checked_without_starting(tmp_path: Path) -> None:
    assert medforged(tmp_path, "[containers]\npids = 100\n", "--check").returncode == 0
    assert medforged(tmp_path, "[containers]\npidz = 100\n", "--check").returncode == CONFIG


def test_a_pool_that_does_not_exist(tmp_path: Path) -> None:
    env = {"MEDFORGED_ADAPTERS__WORKSPACES": "auto", "MEDFORGED_WORKSPACES__POOL": "nosuchpool"}
    done = medforged(tmp_path, env=env)
    assert done.returncode == UNAVAILABLE
    told = is_one_sentence(done)
    assert "nosuchpool" in told
    assert "zpool" in told
    nothing_is_left(tmp_path)


@pytest.mark.parametrize("how", ["absent", "deaf"])
def test_docker_that_is_down(tmp_path: Path, how: str) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        if how == "deaf":
            deaf.bind(str(path))  # and never listens, as after a crash
        done = medforged(tmp_path, env={"MEDFORGED_CONTAINERS__DOCKER_SOCKET": str(path)})
    assert done.returncode == UNAVAILABLE
    assert "docker" in is_one_sentence(done).lower()
    nothing_is_left(tmp_path)


def test_a_group_that_does_not_exist(tmp_path: Path) -> None:
    done = medforged(tmp_path, env={"MEDFORGED_DAEMON__SOCKET_GROUP": "nosuchgroup"})
    assert done.returncode == CONFIG
    assert "groupadd --system nosuchgroup" in is_one_sentence(done)
    nothing_is_left(tmp_path)


def test_a_daemon_without_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = medforged(tmp_path, user="nobody")
    assert done.returncode in (NO_PERMISSION, CONFIG)
    told = done.stderr.strip().splitlines()[-1]
    assert "root" in told or "Permission denied" in told


def test_a_socket_that_is_in_use(installation: Installation, tmp_path: Path) -> None:
    done = medforged(tmp_path, env={"MEDFORGED_DAEMON__SOCKET": str(installation.daemon_socket)})
    assert done.returncode == UNAVAILABLE
    assert "another medforged answers there" in is_one_sentence(done)
    assert installation.ctl("status", check=False).returncode == 0, "the running daemon was disturbed"


def test_a_file_where_the_socket_belongs(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "medforged.sock").write_text("precious")
    done = medforged(tmp_path)
    assert done.returncode == UNAVAILABLE
    assert "a file that is no socket is there" in is_one_sentence(done)
    assert (tmp_path / "run" / "medforged.sock").read_text() == "precious"


def test_a_subnet_that_somebody_else_has(installation: Installation, tmp_path: Path) -> None:
    """Isolation cannot be established: the daemon says so and starts no session; it does not take the network over."""
    env = {"MEDFORGED_NETWORK__NAME": installation.network}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(ROOT / ".venv/bin/medforged")],
            env={
                **os.environ,
                **env,
                "MEDFORGED_DAEMON__SOCKET": str(tmp_path / "medforged.sock"),
                "MEDFORGED_DAEMON__STATE_DIRECTORY": str(tmp_path / "state"),
                "MEDFORGED_DAEMON__INSTANCE": "mfbad",
                "MEDFORGED_NETWORK__SUBNET": "172.29.251.0/24",
                "MEDFORGED_NETWORK__PROXY_ADDRESS": "172.29.251.2",
                "MEDFORGED_ADAPTERS__WORKSPACES": "directories",
                "MEDFORGED_WORKSPACES__DIRECTORY": str(tmp_path / "workspaces"),
                "PACK_IMAGE": PINNED,
            },
            stderr=log,
        )
    try:
        ctl = [str(ROOT / ".venv/bin/medforgectl"), "--socket", str(tmp_path / "medforged.sock"), "status"]
        for _ in range(300):
            status = subprocess.run(ctl, capture_output=True, text=True, check=False)
            if status.stdout:
                break
        assert status.returncode == FAILED
        assert "isolation" in status.stdout
        assert "subnet is" in status.stdout.replace("\n", " ")
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert SUBNET in docker("network", "inspect", installation.network)


def test_the_https_port_is_taken(installation: Installation) -> None:
    done = installation.ops("up", check=False, MEDFORGE_INSTANCE="mfbad", MEDFORGE_POOL="mfbadpool")
    assert done.returncode == UNAVAILABLE
    assert f"port {PORT} is taken" in done.stderr
    assert "MEDFORGE_HTTPS_PORT" in done.stderr
    assert not Path("/run/mfbad/ledger.json").exists()
    assert "mfbadpool" not in subprocess.run(["zpool", "list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MEDFORGE_HTTPS_PORT", "eighty"),
        ("MEDFORGE_HTTPS_PORT", "70000"),
        ("MEDFORGE_DOMAIN", "Not A Domain"),
        ("MEDFORGE_INSTANCE", "../etc"),
        ("MEDFORGE_QUOTA_BYTES", "much"),
    ],
)
def test_up_refuses_variables_that_cannot_be(installation: Installation, variable: str, value: str) -> None:
    done = installation.ops("up", check=False, **{variable: value})
    assert done.returncode == CONFIG
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


def test_up_without_root() -> None:
    become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    done = subprocess.run([*become, str(ROOT / "ops/up")], capture_output=True, text=True, check=False)
    if done.returncode == 126 or "Permission denied" in done.stderr:
        pytest.skip("the checkout cannot be read by other users here")
    assert done.returncode == NO_PERMISSION
    assert "needs root" in done.stderr


def test_a_second_up_leaves_alone_what_runs_and_starts_what_is_down(installation: Installation) -> None:
    daemon, facade = installation.process("daemon"), installation.process("facade")
    installation.up()
    assert (installation.process("daemon"), installation.process("facade")) == (daemon, facade)
    os.kill(facade, 9)
    installation.up()
    assert installation.process("daemon") == daemon
    assert installation.process("facade") != facade
    assert installation.ctl("status", check=False).returncode == 0


def test_ctl_says_why_the_daemon_cannot_be_reached(installation: Installation, tmp_path: Path) -> None:
    ctl = str(ROOT / ".venv/bin/medforgectl")
    absent = subprocess.run(
        [ctl, "--socket", str(tmp_path / "none.sock"), "status"], capture_output=True, text=True, check=False
    )
    assert absent.returncode == UNAVAILABLE
    assert "it is not running" in absent.stderr
    assert grp.getgrgid(installation.daemon_socket.stat().st_gid).gr_name == "medforge"
    assert installation.daemon_socket.stat().st_mode & 0o777 == 0o660
