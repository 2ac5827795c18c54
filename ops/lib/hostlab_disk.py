"""Owns the disks of the virtual host: a whole system with systemd, OpenZFS and Docker, and what a run brings along.

The system's disk takes minutes and depends on nothing of this checkout but the packages named here and the Python
packages that MedForge and its tests need, so it is kept under a name made of those.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Failure, run, say

CACHE = Path(os.environ.get("MEDFORGE_CACHE", "/var/cache/medforge")) / "hostlab"
# What the system has before MedForge comes: what an operator's host has, and what its tests need beside.
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "iptables", "procps", "curl", "ca-certificates",
    "initramfs-tools", "zfsutils-linux", "python3-pyzfs", "docker.io", "apparmor", "tini",
    "python3", "python3-venv", "python3-dev", "gcc", "libc6-dev",
    "openssh-server", "busybox-static", "strace",
)  # fmt: skip


@dataclass(frozen=True)
class Distribution:
    """One that MedForge is for: its suite, the sections, what it alone has, and where its kernel keeps OpenZFS."""

    suite: str
    components: str
    packages: tuple[str, ...]
    module: str


DISTRIBUTIONS = {
    "debian": Distribution(
        "trixie", "main contrib",
        ("linux-image-cloud-amd64", "linux-headers-cloud-amd64", "zfs-dkms", "docker-cli"),
        "lib/modules/*/updates/dkms/zfs.ko*",
    ),
    "ubuntu": Distribution("noble", "main universe", ("linux-image-virtual",), "lib/modules/*/kernel/zfs/zfs.ko*"),
}  # fmt: skip
# Where Ubuntu's packages are, for a host that is no Ubuntu itself.
_UBUNTU_MIRROR = "MEDFORGE_UBUNTU_MIRROR"
_UBUNTU_KEYS = Path("usr/share/keyrings/ubuntu-archive-keyring.gpg")
# The package that has them, as noble's list of packages names it; known by what it is, whoever it comes from.
_UBUNTU_KEYRING = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
_UBUNTU_KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
SYSTEM_BYTES = 10 * 1024**3
# Run in the new system's folder while the network is still there.
CUSTOMIZE = ROOT / "ops" / "hostlab" / "customize"


@dataclass(frozen=True)
class System:
    """The parts of a bootable system."""

    disk: Path
    kernel: Path
    initrd: Path


def system(on: str) -> System:
    """The system's disk, made where the cache has none. It is never written to: a run has a layer of its own."""
    CACHE.mkdir(parents=True, exist_ok=True)
    distribution = DISTRIBUTIONS[on]
    home = _home(distribution)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            for old in CACHE.glob(f"{distribution.suite}-*"):
                shutil.rmtree(old)
            _make(home, distribution)
    return System(home / "system.img", home / "vmlinuz", home / "initrd.img")


def cached(on: str) -> bool:
    """Whether `system` has nothing to make."""
    return _home(DISTRIBUTIONS[on]).exists()


def _home(distribution: Distribution) -> Path:
    parts = [
        repr(distribution),
        *_PACKAGES,
        str(SYSTEM_BYTES),
        CUSTOMIZE.read_text(),
        *_product(),
        *_tests(),
        _constraints().read_text(),
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return CACHE / f"{distribution.suite}-{key}"


def _make(home: Path, distribution: Distribution) -> None:
    say("making the virtual host's system (minutes; kept for the next time)")
    log = CACHE / "system.log"
    log.write_text("")
    with tempfile.TemporaryDirectory(prefix="hostlab-", dir=CACHE) as scratch:
        work = Path(scratch)
        # mmdebstrap's own processes have to pass through.
        work.chmod(0o755)
        root, made = work / "root", work / "made"
        made.mkdir()
        (work / "product").write_text("\n".join(_product()) + "\n")
        (work / "tests").write_text("\n".join([*_product(), *_tests()]) + "\n")
        sources, keys = _sources(distribution, work)
        environment = {
            "WHEELS_LIST": str(work / "product"),
            "TESTS_LIST": str(work / "tests"),
            "CONSTRAINTS": str(_constraints()),
        }
        argv = [
            "mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory", *keys,
            f"--include={','.join((*_PACKAGES, *distribution.packages))}",
            "--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
            f"--aptopt=Acquire::http::Proxy \"{_apt_proxy()}\"",
            f'--customize-hook={CUSTOMIZE} "$1"', "", str(root), "-",
        ]  # fmt: skip
        _logged(argv, log, stdin="\n".join(sources) + "\n", env=environment)
        for name in ("vmlinuz", "initrd.img"):
            newest = sorted((root / "boot").glob(f"{name}-*"))
            if not newest:
                raise Failure(f"the new system has no {name}; see {log}")
            shutil.copyfile(newest[-1], made / name)
        if not list(root.glob(distribution.module)):
            raise Failure(f"the new system's kernel has no OpenZFS; see {log}")
        say("putting it on a disk")
        disk = made / "system.img"
        with disk.open("wb") as file:
            file.truncate(SYSTEM_BYTES)
        run(["mkfs.ext4", "-q", "-F", "-d", root, disk], log=log)
        made.rename(home)
    say("the system is made")


def luggage(target: Path, content: Path) -> None:
    """A read-only disk, labelled `lab`, with what is in a folder."""
    size = sum(path.lstat().st_size for path in content.rglob("*") if path.is_file())
    with target.open("wb") as file:
        file.truncate(size + size // 4 + 64 * 1024**2)
    run(["mkfs.ext4", "-q", "-F", "-L", "lab", "-d", content, target])


def mirror_lines(suite: str, components: str) -> list[str]:
    """apt's source lines for a suite, from this host's own mirrors. Raises Failure where they have none."""
    script = f'ROOT={ROOT}; CACHE=/nonexistent; . "$ROOT/ops/lib/images.sh"; apt_lists; mirror_lines'
    done = run(["env", f"MEDFORGE_APT_SUITE={suite}", "bash", "-c", script])
    lines = [line for line in done.splitlines() if line.startswith("deb ")]
    return [" ".join([*line.split()[:3], components]) for line in lines]


def _sources(distribution: Distribution, work: Path) -> tuple[list[str], list[str]]:
    """apt's lines, and mmdebstrap's option for the keys that they are signed with. Raises Failure."""
    if distribution is not DISTRIBUTIONS["ubuntu"] or platform.freedesktop_os_release().get("ID") == "ubuntu":
        return mirror_lines(distribution.suite, distribution.components), []
    mirror = os.environ.get(_UBUNTU_MIRROR, "").rstrip("/")
    if not mirror.startswith(("http://", "https://")):
        raise Failure(f"this host is no Ubuntu: name a mirror of Ubuntu's in {_UBUNTU_MIRROR}", 78)
    package = work / "keyring.deb"
    try:
        with urllib.request.urlopen(f"{mirror}/{_UBUNTU_KEYRING}", timeout=60) as answer:
            package.write_bytes(answer.read())
    except OSError as error:
        raise Failure(f"cannot fetch {mirror}/{_UBUNTU_KEYRING}: {error}; name another mirror") from error
    if hashlib.sha256(package.read_bytes()).hexdigest() != _UBUNTU_KEYRING_SHA256:
        raise Failure(f"{mirror}/{_UBUNTU_KEYRING} is not Ubuntu's; name another mirror")
    run(["dpkg-deb", "--extract", package, work / "keyring"])
    suites = (distribution.suite, f"{distribution.suite}-updates", f"{distribution.suite}-security")
    lines = [f"deb {mirror} {suite} {distribution.components}" for suite in suites]
    return lines, [f"--keyring={work / 'keyring' / _UBUNTU_KEYS}"]


def _apt_proxy() -> str:
    script = f'ROOT={ROOT}; . "$ROOT/ops/lib/images.sh"; apt_option Acquire::http::Proxy'
    return run(["bash", "-c", script]).strip()


def _constraints() -> Path:
    return ROOT / "deploy" / "constraints.txt"


def _project() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = [*project["build-system"]["requires"], "wheel", "setuptools"]
    extras = project["project"]["optional-dependencies"]
    return {"product": [*project["project"]["dependencies"], *extras["mariadb"], *build], "dev": extras["dev"]}


def _product() -> list[str]:
    return _project()["product"]


def _tests() -> list[str]:
    wanted = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")
    return [line for line in _project()["dev"] if line.split(">")[0] in wanted]


def _logged(argv: list[str], log: Path, *, stdin: str, env: dict[str, str]) -> None:
    with log.open("a") as out:
        done = subprocess.run(
            argv, check=False, text=True, input=stdin, stdout=out, stderr=out, env={**os.environ, **env}
        )
    if done.returncode != 0:
        last = "\n  ".join(log.read_text().strip().splitlines()[-12:])
        raise Failure(f"`{argv[0]}` ended with {done.returncode} (whole output: {log}):\n  {last}")
