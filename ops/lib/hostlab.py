"""Owns `ops/hostlab/run`: what the virtual host needs on this one, what it is given, and one pytest run against it."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hostlab_disk
import hostlab_machine
import hostparts
import packages
from common import ROOT, Failure, fail, run, say
from hostlab_machine import Machine
from processes import Ledger

_LOGS = Path("/var/log/medforge-test")
_LEDGER = Path("/run/medforge-test/hostlab.json")
# 7.2 corrupts flags in emulation, and current kernels panic.
_OLDEST_QEMU = 8
_SOURCE = (
    "medforged", "facade", "cli", "web", "deploy", "systemd", "ops", "docs", "tests",
    "pyproject.toml", "LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md",
)  # fmt: skip
_CADDY = "medforge-caddy:local"
# When, in seconds since 1970, the run that this lane is a part of has to be over.
DEADLINE_VARIABLE = "MEDFORGE_TEST_DEADLINE"
# What the lane takes on two cores, and how much longer where the system has to be made first.
_LANE_MINUTES, _SYSTEM_MINUTES = 40, 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/hostlab/run", description="Run the lane `hostlab` on a virtual host.")
    parser.add_argument(
        "--on", choices=list(hostlab_disk.DISTRIBUTIONS), default="debian", help="what the machine is (debian)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the machine running for the next run")
    parser.add_argument("--shell", action="store_true", help="a root shell in a machine that was kept")
    parser.add_argument("--down", action="store_true", help="end a machine that was kept")
    parser.add_argument("arguments", nargs="*", help="for pytest, or the command for --shell, after --")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if os.geteuid() != 0:
            raise Failure("this needs root: use sudo", 77)
        if options.down:
            _down()
        elif options.shell:
            _shell(options.arguments)
        else:
            sys.exit(_lane(options.arguments, on=options.on, keep=options.keep))
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _lane(arguments: list[str], *, on: str, keep: bool) -> int:
    venv = packages.virtualenv(extras="dev")
    with tempfile.TemporaryDirectory(prefix="hostlab-") as scratch, machine(on, keep=keep):
        told = Path(scratch) / "result.xml"
        code = subprocess.run(
            [venv / "bin" / "python", "-m", "pytest", "--lanes", "hostlab", f"--junitxml={told}", *arguments],
            check=False,
            cwd=ROOT,
            env={**os.environ, "PATH": f"{venv}/bin:{os.environ.get('PATH', '')}"},
        ).returncode
        line = _summary(told)
    print(line, flush=True)
    return code


def _summary(told: Path) -> str:
    """The line for people and CI. What was skipped has not passed."""
    if not told.exists():
        return "hostlab: 0/0 passed"
    suites = list(ET.parse(told).getroot().iter("testsuite"))
    count = {
        name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    }
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    return f"hostlab: {passed}/{count['tests'] - count['skipped']} passed{skipped}"


@contextmanager
def machine(on: str = "debian", *, keep: bool = False) -> Iterator[Machine]:
    """A virtual host with this source tree at /opt/source: the one that was kept, or a new one, ended afterwards.

    Raises Failure where one of another distribution was kept.
    """
    found = hostlab_machine.running()
    if found is not None and found.on != on:
        raise Failure(f"the virtual host that was kept is {found.on}; `ops/hostlab/run --down` ends it")
    made = found or up(on)
    try:
        send_source(made)
        yield made
    finally:
        if keep:
            say("the virtual host is kept; `ops/hostlab/run --down` ends it")
        else:
            made.stop()


def lack_of_time() -> str:
    """Why there is no time for the lane in the run that it is a part of; empty where there is."""
    left = _minutes_left()
    needed = _LANE_MINUTES + (0 if hostlab_disk.cached("debian") else _SYSTEM_MINUTES)
    if left >= needed:
        return ""
    return (
        f"{max(0, left):.0f} minutes are left of this run and it takes about {needed}; run ops/hostlab/run for it alone"
    )


def time_is_up() -> str:
    """Why nothing more of the lane begins in the run that it is a part of; empty while there is time."""
    if _minutes_left() > 0:
        return ""
    return "the time of this run was up before this began; run ops/hostlab/run for the lane alone"


def _minutes_left() -> float:
    """Of the run that this lane is a part of; without end where it is run alone."""
    deadline = os.environ.get(DEADLINE_VARIABLE)
    return (float(deadline) - time.time()) / 60 if deadline is not None else math.inf


def up(on: str) -> Machine:
    """Boot a new machine, with what it needs from here made first. Raises Failure."""
    install_tools()
    with tempfile.TemporaryDirectory(prefix="hostlab-") as scratch:
        luggage = Path(scratch)
        _pack_images(luggage / "images")
        return hostlab_machine.start(luggage, on)


def install_tools() -> None:
    """QEMU and what makes disks. Raises Failure where this host cannot have them."""
    packages.install(
        {
            "mmdebstrap": shutil.which("mmdebstrap") is not None,
            "e2fsprogs": shutil.which("mkfs.ext4", path="/usr/sbin:/sbin") is not None,
            "openssh-client": shutil.which("ssh-keygen") is not None,
        }
    )
    if _qemu_version() < _OLDEST_QEMU:
        _install_qemu()
    if (version := _qemu_version()) < _OLDEST_QEMU:
        raise Failure(f"QEMU {version} cannot run current kernels; install QEMU {_OLDEST_QEMU} or newer")


def _qemu_version() -> int:
    if shutil.which("qemu-system-x86_64") is None or shutil.which("qemu-img") is None:
        return 0
    found = re.search(r"version (\d+)\.", run(["qemu-system-x86_64", "--version"]))
    return int(found.group(1)) if found else 0


def _install_qemu() -> None:
    """From the distribution, or from its backports where that has an old one; this host's sources stay as they are."""
    wanted = ["qemu-system-x86", "qemu-utils"]
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if codename != "bookworm":
        packages.install(dict.fromkeys(wanted, False))
        return
    say("installing QEMU from bookworm-backports")
    with tempfile.TemporaryDirectory(prefix="hostlab-apt-") as scratch:
        main, backports = hostlab_disk.mirror_lines("bookworm", "main"), "bookworm-backports"
        if not main:
            raise Failure("this host's apt knows no mirror of bookworm; install QEMU 8 or newer by hand")
        first = main[0].split()
        sources = Path(scratch) / "sources.list"
        sources.write_text("\n".join([*main, f"{first[0]} {first[1]} {backports} main"]) + "\n")
        apt = ["apt-get", "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null",
               "-o", "APT::Get::List-Cleanup=0", "-o", "DPkg::Lock::Timeout=300"]  # fmt: skip
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        run([*apt, "update", "-qq"], log=packages.APT_LOG, env=env)
        install = ["install", "-y", "-qq", "--no-install-recommends", "-t", backports]
        run([*apt, *install, *wanted], log=packages.APT_LOG, env=env)


def send_source(machine: Machine) -> None:
    """Put this source tree into the machine, in the place of the one that is there."""
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in _SOURCE:
                archive.add(ROOT / name, name, filter=_as_roots)
        packed.seek(0)
        machine.run("rm -rf /opt/source && mkdir /opt/source && tar x -C /opt/source", stdin=packed.read())


def _as_roots(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _pack_images(target: Path) -> None:
    """Caddy's image, as `ops/images` makes it here: the machine itself reaches no registry."""
    target.mkdir()
    ledger = Ledger(_LEDGER)
    _LOGS.mkdir(parents=True, exist_ok=True)
    try:
        hostparts.install_packages()
        hostparts.ensure_docker(ledger, _LOGS)
        run([ROOT / "ops" / "images", "caddy"], log=_LOGS / "images.log")
        run(["docker", "save", "--output", target / "caddy.tar", _CADDY])
    finally:
        hostparts.release_host(ledger, quiet=True)


def _down() -> None:
    found = hostlab_machine.running()
    if found is None:
        say("no virtual host runs")
        return
    found.stop()


def _shell(command: list[str]) -> None:
    found = hostlab_machine.running()
    if found is None:
        raise Failure("no virtual host runs; `ops/hostlab/run --keep` leaves one", 69)
    sys.exit(subprocess.run(found.shell(" ".join(command)), check=False).returncode)


if __name__ == "__main__":
    main()
