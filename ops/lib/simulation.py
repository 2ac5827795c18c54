"""Owns `ops/up --simulate`: daemon and facade of one user, with every part of the host simulated."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import packages
from common import ROOT, Failure, say
from processes import Ledger


def _port() -> int:
    port = os.environ.get("MEDFORGE_HTTP_PORT", "8080")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Failure(f"MEDFORGE_HTTP_PORT={port!r}: use a port from 1 to 65535", 78)
    return int(port)


def _site() -> str:
    """Under this name and no other, since the cookie belongs to the domain medforge.localhost."""
    return f"http://medforge.localhost:{_port()}"


def _home() -> Path:
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/medforge-{os.getuid()}")
    base.mkdir(mode=0o700, exist_ok=True)
    home = base / "medforge-simulated"
    home.mkdir(mode=0o700, exist_ok=True)
    for path in (base, home):
        # Names under /tmp can be taken by anybody.
        found = path.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise Failure(f"{path} can be changed by others; set XDG_RUNTIME_DIR to a directory of your own", 77)
    return home


def up() -> None:
    home = _home()
    ledger = Ledger(home / "ledger.json")
    venv = packages.virtualenv()
    config = home / "facade.toml"
    config.write_text(_facade_config(home))
    for name, argv, ready in (
        ("daemon", [venv / "bin" / "medforged", "--simulate", home], (home / "medforged.sock").exists),
        ("facade", [venv / "bin" / "medforge-facade", "--config", config], _answers),
    ):
        if ledger.pid(name) is None:
            say(f"starting the {name}")
            log = home / f"{name}.log"
            before = log.stat().st_size if log.exists() else 0
            ledger.start(name, argv, log)
            ledger.wait_ready(name, log, before, ready, 30)
    ctl = f"{venv}/bin/medforgectl --socket {home}/medforged.sock"
    print(
        f"MedForge is up, with a simulated host: sessions are records, there is no IDE behind them.\n"
        f"  web   {_site()}/\n"
        f"  api   {_site()}/api/v1\n"
        f"  ask   {ctl} status\n"
        f"  admin {ctl} users create you@example.org --admin --generate\n"
        f"  logs  {home}\n"
        f"  stop  ops/down --simulate"
    )


def down() -> None:
    ledger = Ledger(_home() / "ledger.json")
    for name in reversed(list(ledger.entries)):
        ledger.stop(name)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{_port()}/healthz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _facade_config(home: Path) -> str:
    quoted = json.dumps
    return "\n".join(
        [
            "[site]",
            f"web_root = {quoted(str(ROOT / 'web'))}",
            "any_host = true",
            f"development_origins = [{quoted(_site())}]",
            "[listen]",
            f"tcp = {quoted(f'127.0.0.1:{_port()}')}",
            f"operator_socket = {quoted(str(home / 'operators.sock'))}",
            "[operators]",
            "own_user = true",
            "[auth]",
            "cookie_secure = false",
            "[database]",
            f"url = {quoted(f'sqlite+aiosqlite:///{home}/facade.db')}",
            "[daemon]",
            f"socket = {quoted(str(home / 'medforged.sock'))}",
            "[process]",
            "allow_privileged = true",
            "",
        ]
    )
