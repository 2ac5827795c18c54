"""Owns MedForge's own processes in a trial installation: daemon, facade and Caddy."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import hostparts
from common import ROOT, Failure, run, say, succeeds, wait_for
from layout import CADDY_USER, FACADE_USER, OPERATOR_GROUP, Layout
from processes import Ledger

# One process of each; where systemd is PID 1 they are transient units with these names.
_UNITS = {"daemon": "medforged", "facade": "medforge-facade"}


def ensure_daemon(layout: Layout, ledger: Ledger, venv: Path, pack: str, *, zfs: bool) -> None:
    config = layout.state / "medforged.toml"
    _write(config, _daemon_config(layout, pack, zfs=zfs), mode=0o600)
    argv = [venv / "bin" / "medforged", "--config", config]
    if not hostparts.has_systemd():
        argv = [*_keeper(layout.daemon_socket, layout.daemon_pid_file, OPERATOR_GROUP), "--", *argv]
    _ensure(layout, ledger, "daemon", argv, layout.daemon_socket)


def ensure_facade(layout: Layout, ledger: Ledger, venv: Path) -> None:
    # In a directory of root's own: the facade reads its configuration and can never change it.
    config = layout.run / "facade.toml"
    _write(config, _facade_config(layout), mode=0o644)
    # An unprivileged user from the very start: nothing of the facade ever runs as root, its keeper included.
    become = [
        "setpriv", f"--reuid={FACADE_USER}", f"--regid={FACADE_USER}", f"--groups={OPERATOR_GROUP},{CADDY_USER}",
        "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
    ]  # fmt: skip
    argv = [venv / "bin" / "medforge-facade", "--config", config]
    if not hostparts.has_systemd():
        # Two facades may serve at once: the next one is ready before the last one stops accepting.
        argv = [*_keeper(layout.facade_socket, layout.facade_pid_file, CADDY_USER), "--overlap", "--", *argv]
    # Before that, and as root: the socket by which operators reach it, where it could not make one itself.
    operators = ["/usr/bin/python3", ROOT / "ops" / "lib" / "listener.py", "--socket", layout.operator_socket,
                 "--name", "operator", "--group", OPERATOR_GROUP, "--"]  # fmt: skip
    _ensure(layout, ledger, "facade", [*operators, *become, *argv], layout.facade_socket)


def _keeper(listens_at: Path, pid_file: Path, group: str) -> list[str | Path]:
    """What a program is started by where no systemd holds its socket; options of the keeper may follow, then `--`."""
    keeper = ["/usr/bin/python3", ROOT / "ops" / "lib" / "keeper.py"]
    return [*keeper, "--socket", listens_at, "--pid-file", pid_file, "--group", group]


def ensure_caddy(layout: Layout, ledger: Ledger) -> None:
    env = _caddy_environment(layout)
    if "caddy" not in ledger.entries or not succeeds_with(env, "status"):
        say("starting Caddy")
    run([ROOT / "deploy" / "caddy" / "container", "up"], env=env, log=layout.logs / "caddy.log")
    ledger.note("caddy", container=layout.caddy_name)


def succeeds_with(env: dict[str, str], action: str) -> bool:
    return succeeds(
        ["env", *(f"{name}={value}" for name, value in env.items()), ROOT / "deploy/caddy/container", action]
    )


def stop_all(layout: Layout, ledger: Ledger, venv: Path, *, force: bool) -> None:
    """Sessions first, while there is somebody who can snapshot them; then the way in; then the processes.

    Sessions that cannot be stopped end it there, unless forced: then their containers stay, for the next `up`.
    """
    if _alive(ledger, "daemon"):
        say("stopping sessions")
        ctl = [venv / "bin" / "medforgectl", "--socket", layout.daemon_socket]
        try:
            run([*ctl, "sessions", "stop", "--all", "--wait"])
        except Failure as error:
            if not force:
                raise Failure(
                    f"{error}\nRepair that, or run ops/down --force, which leaves sessions as they are"
                ) from error
            say(f"going on although {error}")
    if "caddy" in ledger.entries:
        say("stopping Caddy")
        run([ROOT / "deploy" / "caddy" / "container", "down"], env=_caddy_environment(layout), check=False)
        ledger.forget("caddy")
    _stop(ledger, "facade")
    layout.operator_socket.unlink(missing_ok=True)
    _stop(ledger, "daemon")
    config = layout.state / "medforged.toml"
    if config.exists() and succeeds(["docker", "info"]):
        run(
            [venv / "bin" / "medforged", "--config", config, "--release"],
            log=layout.logs / "daemon.log",
            check=not force,
        )
    if (link := ledger.entries.get("command")) is not None:
        Path(str(link["path"])).unlink(missing_ok=True)
        ledger.forget("command")


def _ensure(layout: Layout, ledger: Ledger, name: str, argv: list[str | Path], listens_at: Path) -> None:
    if _alive(ledger, name) and _answers(listens_at):
        return
    _stop(ledger, name)
    say(f"starting the {name}")
    log = layout.logs / f"{name}.log"
    before = log.stat().st_size if log.exists() else 0
    if hostparts.has_systemd():
        unit = f"{_UNITS[name]}-{layout.instance}.service"
        run(["systemd-run", f"--unit={unit}", "--collect", "--property=Restart=always", "--property=KillMode=process",
             f"--property=StandardError=append:{log}", *argv])  # fmt: skip
        ledger.note(name, unit=unit)
        wait_for(f"the {name}'s answer", lambda: _answers(listens_at), 60, f"see {log}")
    else:
        ledger.start(name, argv, log)
        ledger.wait_ready(name, log, before, lambda: _answers(listens_at), 60)


def _alive(ledger: Ledger, name: str) -> bool:
    unit = ledger.entries.get(name, {}).get("unit")
    if unit is not None:
        return succeeds(["systemctl", "is-active", "--quiet", str(unit)])
    return ledger.pid(name) is not None


def _stop(ledger: Ledger, name: str) -> None:
    unit = ledger.entries.get(name, {}).get("unit")
    if unit is not None:
        run(["systemctl", "stop", str(unit)], check=False)
        ledger.forget(name)
    else:
        ledger.stop(name)


def _answers(path: Path) -> bool:
    """Whether somebody answers HTTP there; that somebody listens says nothing, since a keeper does from the start."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
            probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return probe.recv(5) == b"HTTP/"
        except OSError:
            return False


def _daemon_config(layout: Layout, pack: str, *, zfs: bool) -> str:
    # JSON strings and numbers are TOML's as well.
    quoted = json.dumps
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = [
        "# Written by ops/up at every start; make a configuration of your own for a real installation.",
        "[daemon]",
        f"instance = {quoted(layout.instance)}",
        f"socket = {quoted(str(layout.daemon_socket))}",
        f"state_directory = {quoted(str(layout.state))}",
        'log_format = "json"',
        "[workspaces]",
        f"pool = {quoted(layout.pool)}",
        f"directory = {quoted(str(layout.state / 'workspaces'))}",
        f"quota_bytes = {layout.quota_bytes}",
        "[network]",
        f"name = {quoted(layout.network)}",
        f"bridge = {quoted(layout.bridge)}",
        f"subnet = {quoted(layout.subnet)}",
        f"proxy_address = {quoted(layout.proxy_address)}",
        "[containers]",
        f"memory_bytes = {max(2 * 1024**3, memory // 8)}",
        f"shm_bytes = {512 * 1024**2}",
        f"cpus = {float(cores)}",
        "[packs]",
        f"default_image = {quoted(pack)}",
    ]
    if not zfs:
        lines[1:1] = ["[adapters]", 'workspaces = "directories"']
    return "\n".join(lines) + "\n"


def _facade_config(layout: Layout) -> str:
    quoted = json.dumps
    return "\n".join(
        [
            "# Written by ops/up at every start; make a configuration of your own for a real installation.",
            "[site]",
            f"domain = {quoted(layout.domain)}",
            f"https_port = {layout.https_port}",
            f"web_root = {quoted(str(ROOT / 'web'))}",
            "[listen]",
            f"socket = {quoted(str(layout.facade_socket))}",
            f"socket_group = {quoted(CADDY_USER)}",
            "[operators]",
            f"group = {quoted(OPERATOR_GROUP)}",
            "[database]",
            f"url = {quoted(f'sqlite+aiosqlite:///{layout.facade_state}/facade.db')}",
            "[daemon]",
            f"socket = {quoted(str(layout.daemon_socket))}",
            "[process]",
            'log_format = "json"',
            "",
        ]
    )


def _caddy_environment(layout: Layout) -> dict[str, str]:
    return {
        "MEDFORGE_INSTANCE": layout.instance,
        "MEDFORGE_DOMAIN": layout.domain,
        "MEDFORGE_HTTPS_PORT": str(layout.https_port),
        "MEDFORGE_NETWORK": layout.network,
        "MEDFORGE_CADDY_ADDRESS": layout.proxy_address,
        "MEDFORGE_CADDY_NAME": layout.caddy_name,
        "MEDFORGE_CADDY_STATE": str(layout.caddy_state),
        "MEDFORGE_FACADE_SOCKET_DIR": str(layout.facade_run),
    }


def _write(path: Path, text: str, mode: int) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)
