"""Owns `ops/up --simulate`: daemon and facade of one user, with every part of the host simulated."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import packages
from common import ROOT, Failure, say, wait_for
from processes import Ledger

PORT = int(os.environ.get("MEDFORGE_HTTP_PORT", "8080"))
# Under this name and no other, since the cookie belongs to the domain medforge.localhost.
SITE = f"http://medforge.localhost:{PORT}"


def _home() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/medforge-{os.getuid()}"
    return Path(base) / "medforge-simulated"


def up() -> None:
    home = _home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise Failure(f"{home} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of your own", 77)
    ledger = Ledger(home / "ledger.json")
    venv = packages.virtualenv()
    config = home / "facade.toml"
    config.write_text(_facade_config(home))
    for name, argv in (
        ("daemon", [venv / "bin" / "medforged", "--simulate", home]),
        ("facade", [venv / "bin" / "medforge-facade", "--config", config]),
    ):
        if ledger.pid(name) is None:
            say(f"starting the {name}")
            ledger.start(name, argv, home / f"{name}.log")
        if name == "daemon":
            wait_for("the daemon's answer", (home / "medforged.sock").exists, 30, f"see {home}/daemon.log")
    wait_for("the facade's answer", _answers, 30, f"see {home}/facade.log")
    print(
        f"MedForge is up, with a simulated host: sessions are records, there is no IDE behind them.\n"
        f"  web   {SITE}/\n"
        f"  api   {SITE}/api/v1\n"
        f"  ask   {venv}/bin/medforgectl --socket {home}/medforged.sock status\n"
        f"  logs  {home}\n"
        f"  stop  ops/down --simulate"
    )


def down() -> None:
    ledger = Ledger(_home() / "ledger.json")
    for name in reversed(list(ledger.entries)):
        ledger.stop(name)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=2) as answer:
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
            f"development_origins = [{quoted(SITE)}]",
            "[listen]",
            f"tcp = {quoted(f'127.0.0.1:{PORT}')}",
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
