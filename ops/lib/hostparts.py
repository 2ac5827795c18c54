"""Owns bringing up what MedForge stands on: Docker, ZFS with a pool, users; and taking down what it brought up."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from pathlib import Path

import packages
from common import Failure, run, say, succeeds, wait_for
from layout import CADDY_USER, FACADE_USER, OPERATOR_GROUP, Layout
from processes import Ledger

# Sparse: takes what is written. Room for a few workspaces on a trial host.
POOL_FILE_BYTES = 20 * 1024**3


def has_systemd() -> bool:
    """Whether systemd is PID 1 (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def engine_packages() -> dict[str, bool]:
    """What sessions' containers need of the distribution, and whether it is there."""
    return {
        "docker.io": shutil.which("dockerd") is not None,
        # A package of its own since Debian 13, where docker.io only recommends it.
        "docker-cli": shutil.which("docker") is not None or not packages.available("docker-cli"),
        # docker.io only recommends it in some releases, and `docker run --init` needs it.
        "tini": shutil.which("tini") is not None or shutil.which("docker-init") is not None,
        "iptables": shutil.which("iptables") is not None,
        "ca-certificates": Path("/etc/ssl/certs/ca-certificates.crt").exists(),
    }


def install_packages() -> None:
    wanted = {**engine_packages(), **packages.python_packages()}
    if not _zfs_works() and shutil.which("zfs-fuse") is None:
        if Path("/dev/zfs").exists() or _module_offered("zfs"):
            wanted["zfsutils-linux"] = shutil.which("zfs") is not None
        elif Path("/dev/fuse").exists() and packages.available("zfs-fuse"):
            wanted["zfs-fuse"] = False
    packages.install(wanted)


def _module_offered(name: str) -> bool:
    """Whether the running kernel has the module on disk; `modinfo` belongs to kmod, which a container lacks."""
    return succeeds(["modinfo", name])


def ensure_docker(ledger: Ledger, logs: Path) -> None:
    if succeeds(["docker", "info"]):
        return
    if has_systemd():
        say("starting Docker with systemd")
        run(["systemctl", "start", "docker"])
        ledger.note("docker.service", unit="docker.service")
    else:
        say("starting dockerd")
        # A pid file of a dockerd that was killed keeps a new one from starting.
        stale = Path("/var/run/docker.pid")
        if stale.exists() and not Path(f"/proc/{stale.read_text().strip()}").exists():
            stale.unlink()
        ledger.start("dockerd", ["dockerd"], logs / "dockerd.log")
    wait_for("Docker's answer", lambda: succeeds(["docker", "info"]), 60, f"see {logs / 'dockerd.log'}")


def _turns() -> list[str]:
    """What makes a command that mounts wait for others: zfs-fuse loses itself when two mount at once."""
    return [] if Path("/dev/zfs").exists() else ["flock", "-F", "/run/medforge-zfs-fuse.lock"]


def _zfs_works() -> bool:
    return shutil.which("zpool") is not None and succeeds(["zpool", "list"])


def ensure_zfs(ledger: Ledger, layout: Layout) -> bool:
    """Bring ZFS and the pool up. False on a host that has no ZFS at all."""
    if not ensure_zfs_daemon(ledger, layout.logs):
        say("this host has no ZFS: workspaces will be plain directories, without quotas")
        return False
    if succeeds(["zpool", "list", layout.pool]):
        return True
    file = layout.state / "pool.img"
    if file.exists():
        say(f"importing pool {layout.pool} from {file}")
        run([*_turns(), "zpool", "import", "-d", file.parent, layout.pool])
    else:
        say(f"creating pool {layout.pool} in {file}; give the name of a pool of your own with MEDFORGE_POOL")
        with file.open("wb") as out:
            out.truncate(POOL_FILE_BYTES)
        run([*_turns(), "zpool", "create", "-m", f"/{layout.pool}", layout.pool, file])
    ledger.note("pool", pool=layout.pool)
    return True


def ensure_zfs_daemon(ledger: Ledger, logs: Path) -> bool:
    """Make the `zpool` command answer: by the kernel's module, else by zfs-fuse. False where there is neither."""
    if not _zfs_works() and shutil.which("modprobe"):
        succeeds(["modprobe", "zfs"])
    if _zfs_works():
        return True
    if shutil.which("zfs-fuse") is None:
        return False
    say("starting zfs-fuse")
    ledger.start("zfs-fuse", ["zfs-fuse", "--no-daemon"], logs / "zfs-fuse.log")
    wait_for("zfs-fuse's answer", _zfs_works, 30, f"see {logs / 'zfs-fuse.log'}")
    return True


def release_host(ledger: Ledger, *, quiet: bool = False) -> None:
    """Undo what this module brought up. The pool comes before what it needs, whichever was started anew last."""
    if (pool := ledger.entries.get("pool")) is not None:
        # Without ZFS there is nothing imported any more.
        if _zfs_works() and succeeds(["zpool", "list", str(pool["pool"])]):
            _export(str(pool["pool"]), quiet=quiet)
        ledger.forget("pool")
    if "docker.service" in ledger.entries:
        run(["systemctl", "stop", "docker.service", "docker.socket"])
        ledger.forget("docker.service")
    for name in ("dockerd", "zfs-fuse"):
        if name in ledger.entries:
            ledger.stop(name, quiet=quiet)


def _export(pool: str, *, quiet: bool) -> None:
    if not quiet:
        say(f"exporting pool {pool}")
    wait_for(
        f"the export of pool {pool}",
        # Busy for a moment after the last container has gone.
        lambda: succeeds([*_turns(), "zpool", "export", pool]),
        20,
        f"see `fuser -vm /{pool}`, end what uses it, and run ops/down again",
    )


def ensure_users() -> None:
    for group in (OPERATOR_GROUP, FACADE_USER, CADDY_USER):
        try:
            grp.getgrnam(group)
        except KeyError:
            run(["groupadd", "--system", group])
    # The facade may open the daemon's socket (group medforge) and lets Caddy open its own (group medforge-caddy).
    for user, groups in ((FACADE_USER, f"{OPERATOR_GROUP},{CADDY_USER}"), (CADDY_USER, "")):
        try:
            pwd.getpwnam(user)
        except KeyError:
            extra = ["--groups", groups] if groups else []
            run(
                [
                    "useradd",
                    "--system",
                    "--no-create-home",
                    "--home-dir",
                    "/nonexistent",
                    "--shell",
                    "/usr/sbin/nologin",
                    "--gid",
                    user,
                    *extra,
                    user,
                ]
            )


def ensure_directories(layout: Layout) -> None:
    facade = pwd.getpwnam(FACADE_USER)
    caddy = pwd.getpwnam(CADDY_USER)
    for path, mode, uid, gid in (
        (layout.run, 0o755, 0, 0),
        (layout.state, 0o700, 0, 0),
        (layout.logs, 0o755, 0, 0),
        # Set-group-id: the socket that the facade makes there belongs to Caddy's group.
        (layout.facade_run, 0o2750, facade.pw_uid, caddy.pw_gid),
        (layout.facade_state, 0o700, facade.pw_uid, facade.pw_gid),
        (layout.caddy_state, 0o700, caddy.pw_uid, caddy.pw_gid),
    ):
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, uid, gid)
        path.chmod(mode)


def require_root() -> None:
    if os.geteuid() != 0:
        raise Failure("this needs root: use sudo, or try `ops/up --simulate`, which does not", 77)
