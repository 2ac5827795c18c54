"""The unit files: systemd understands them, the facade is locked in, and the daemon's mounts are seen by Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "systemd"
SERVICES = ("medforged.service", "medforge-facade.service", "medforge-caddy.service")
INSTALLED = "/usr/lib/medforge/current"
# The most that systemd may find exposed, in its own tenths; 100 is everything.
FACADE_EXPOSURE, DAEMON_EXPOSURE = 20, 65
# systemd.exec(5): what gives a service a mount namespace of its own, in which its mounts would be hidden from Docker.
# LoadCredential= and its like count too, for the credentials are mounted in one.
NAMESPACED = frozenset(
    [
        "RootDirectory",
        "RootImage",
        "RootDirectoryStartOnly",
        "MountAPIVFS",
        "ProtectProc",
        "ProcSubset",
        "BindPaths",
        "BindReadOnlyPaths",
        "MountImages",
        "ExtensionImages",
        "ExtensionDirectories",
        "ProtectSystem",
        "ProtectHome",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "ExecPaths",
        "NoExecPaths",
        "TemporaryFileSystem",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateNetwork",
        "NetworkNamespacePath",
        "PrivateIPC",
        "IPCNamespacePath",
        "ProtectHostname",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "PrivateMounts",
        "MountFlags",
        "DynamicUser",
        "LogNamespace",
        "LoadCredential",
        "LoadCredentialEncrypted",
        "SetCredential",
        "SetCredentialEncrypted",
        "ImportCredential",
        "PrivateBPF",
        "PrivatePIDs",
    ]
)


def directives(unit: str) -> list[tuple[str, str]]:
    """Each `Name=value` of a unit in order; the comments are not among them."""
    text = unit.replace("\\\n", " ")
    return [
        (name.strip(), value.strip())
        for name, separator, value in (line.partition("=") for line in text.splitlines() if line[:1] not in "#;[")
        if separator
    ]


def mount_namespaces(unit: str) -> list[str]:
    """The directives that make one."""
    return [
        name for name, value in directives(unit) if name in NAMESPACED and value not in {"no", "false", "0", "off", ""}
    ]


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing (apt-get install systemd)")
    return program


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with programs that exist."""
    programs = tmp_path / "current"
    for name in ("bin/medforged", "bin/medforge-facade", "deploy/caddy/container"):
        program = programs / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    home = tmp_path / "units"
    home.mkdir()
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket"), *UNITS.glob("*.target")):
        (home / unit.name).write_text(unit.read_text().replace(INSTALLED, str(programs)))
    return home


def verify(analyze: str, home: Path) -> str:
    """What systemd finds wrong with the units, and with nothing else."""
    done = subprocess.run(
        [analyze, "verify", "--man=no", *sorted(home.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"SYSTEMD_UNIT_PATH": f"{home}:", "PATH": "/usr/bin:/bin"},
    )
    told = (done.stdout + done.stderr).splitlines()
    return "\n".join(line for line in told if "medforge" in line)


def exposure(analyze: str, unit: Path) -> int:
    """Of all that a service could do, what this one may, in systemd's tenths from 0 to 100."""
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for \S+: (\d+)\.(\d)", done.stdout)
    assert found is not None, done.stdout[-500:]
    return 10 * int(found[1]) + int(found[2])


def test_systemd_understands_them(analyze: str, installed: Path) -> None:
    assert verify(analyze, installed) == ""


def test_what_it_does_not_understand_is_found(analyze: str, installed: Path) -> None:
    unit = installed / "medforged.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSecs="))
    assert "WatchDogSecs" in verify(analyze, installed)


def test_the_facade_is_locked_in(analyze: str) -> None:
    assert exposure(analyze, UNITS / "medforge-facade.service") <= FACADE_EXPOSURE


def test_the_daemon_may_do_what_it_needs_and_little_else(analyze: str) -> None:
    assert exposure(analyze, UNITS / "medforged.service") <= DAEMON_EXPOSURE


def test_a_facade_without_its_walls_is_found(analyze: str, tmp_path: Path) -> None:
    text = (UNITS / "medforge-facade.service").read_text()
    open_one = tmp_path / "medforge-facade.service"
    open_one.write_text(re.sub("(?m)^(Protect|Private|Restrict|SystemCall|Capability).*\n", "", text))
    assert exposure(analyze, open_one) > FACADE_EXPOSURE


def test_the_daemons_mounts_are_seen_by_docker() -> None:
    assert mount_namespaces((UNITS / "medforged.service").read_text()) == []


@pytest.mark.parametrize(
    "line", ["ProtectSystem=strict", "PrivateTmp=yes", "ReadOnlyPaths=/etc", "ProtectKernelModules=1"]
)
def test_a_directive_that_hides_them_is_found(line: str) -> None:
    assert mount_namespaces((UNITS / "medforged.service").read_text() + f"{line}\n") == [line.partition("=")[0]]


def test_the_facade_has_no_way_to_docker_or_to_the_daemons_records() -> None:
    told = dict(directives((UNITS / "medforge-facade.service").read_text()))
    hidden = {path.removeprefix("-") for path in told["InaccessiblePaths"].split()}
    assert {"/run/docker.sock", "/run/containerd", "/var/lib/docker", "/var/lib/medforge", "/dev/zfs"} <= hidden
    assert told["CapabilityBoundingSet"] == told["AmbientCapabilities"] == ""
    assert told["User"] == "medforge-facade"


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_but_itself_stops_them(name: str) -> None:
    """A restart of Docker or of the daemon stops neither the daemon nor the facade; Caddy's container needs Docker."""
    told = directives((UNITS / name).read_text())
    needed = {unit for key, value in told for unit in value.split() if key in {"Requires", "BindsTo", "PartOf"}}
    allowed = {"medforge.target", "docker.service"} if name == "medforge-caddy.service" else {"medforge.target"}
    assert {unit for unit in needed if not unit.endswith(".socket")} <= allowed


def test_users_folders_and_sockets_agree() -> None:
    """Every user and group that a unit or a folder names is made, and every socket has its folder."""
    sysusers = (UNITS / "sysusers.d" / "medforge.conf").read_text()
    made = {words[1] for line in sysusers.splitlines() if (words := line.split()) and words[0] in {"u", "g"}}
    folders: dict[str, list[str]] = {
        words[1]: words[2:]
        for line in (UNITS / "tmpfiles.d" / "medforge.conf").read_text().splitlines()
        if (words := line.split()) and words[0] == "d"
    }
    named = {name for _, *owners in folders.values() for name in owners} - {"root"}
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        for key, value in directives(unit.read_text()):
            if key in {"User", "Group", "SupplementaryGroups", "SocketUser", "SocketGroup"}:
                named |= set(value.split())
            if key == "ListenStream":
                assert str(Path(value).parent) in folders
    assert named <= made


def test_modules_are_loaded_where_the_daemon_looks_for_them() -> None:
    loaded = (UNITS / "modules-load.d" / "medforge.conf").read_text().split("\n")
    (before,) = (value for key, value in directives((UNITS / "medforged.service").read_text()) if key == "ExecStartPre")
    assert {line for line in loaded if line and not line.startswith("#")} == set(before.split("--all ")[1].split())
