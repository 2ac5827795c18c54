"""Owns the virtual host as tests use it: a real Debian with systemd, OpenZFS and Docker, on which MedForge is installed.

Everything is done inside by commands, as an operator or a user's browser would do it.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ops" / "lib"))

from hostlab_machine import Answer, Machine  # noqa: E402 - the operator's scripts are no package

T = TypeVar("T")

SOURCE = "/opt/source"
WHEELS = "/opt/lab/wheels"
PYTHON = "/opt/lab/venv/bin/python"
CURRENT = "/usr/lib/medforge/current"
POOL = "tank"
DOMAIN = "localhost"
PORT = 8443
AUTHORITY = "/var/lib/medforge-caddy/caddy/pki/authorities/local/root.crt"
GPUS = 2
PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer through Caddy."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def data(self) -> Any:
        return json.loads(self.body)["data"]


class Host:
    """The virtual host."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, command: str, **options: Any) -> str:
        return self.machine.run(command, **options)

    def ask(self, command: str, **options: Any) -> Answer:
        return self.machine.ask(command, **options)

    def put(self, content: str, path: str) -> None:
        """Write a file."""
        self.machine.put(content, path)

    def until(self, what: str, look: Callable[[], T], seconds: float = 120) -> T:
        """Wait until `look` gives something true, and return it."""
        deadline = time.monotonic() + seconds
        while not (seen := look()):
            assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
            time.sleep(0.5)
        return seen

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """A unit's properties."""
        told = self.run(f"systemctl show {unit} --property={','.join(properties)}")
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)

    def pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID")["MainPID"])

    def ctl(self, *arguments: str) -> Any:
        """medforgectl with `-o json`, as root."""
        return json.loads(self.run(f"medforgectl {shlex.join(arguments)} -o json"))

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself; empty while it does not answer."""
        answer = self.ask("medforgectl status -o json")
        told: dict[str, Any] = json.loads(answer.stdout) if answer.stdout.startswith("{") else {}
        return told

    def unwell(self) -> dict[str, str]:
        """The daemon's checks that are not well, with what they say."""
        checks = self.status().get("checks", [{"name": "daemon", "health": "gone", "message": "does not answer"}])
        return {check["name"]: check["message"] for check in checks if check["health"] != "ok"}

    def until_well(self, seconds: float = 180) -> None:
        self.until("a well daemon", lambda: not self.unwell(), seconds)
        self.until("a well facade", lambda: self.get("api", "/healthz").status == 200, seconds)

    def journal(self, *matches: str, since: str = "") -> list[dict[str, Any]]:
        """The journal's entries that match, as it keeps them."""
        window = f"--since={shlex.quote(since)}" if since else ""
        told = self.run(f"journalctl --output=json --no-pager --quiet {window} {shlex.join(matches)}")
        return [json.loads(line) for line in told.splitlines()]

    def get(self, name: str, path: str, cookie: str = "") -> Reply:
        return self.send("GET", name, path, cookie)

    def send(self, method: str, name: str, path: str, cookie: str = "", body: object = None) -> Reply:
        """A request through Caddy, on TLS that is verified. `name`: `api`, ``, or a slug's `s-…`."""
        host = f"{name}.medforge.{DOMAIN}" if name else f"medforge.{DOMAIN}"
        config = [
            f'url = "https://{host}:{PORT}{path}"', f'request = "{method}"', f'cacert = "{AUTHORITY}"', "silent",
            "include", "path-as-is", "max-time = 60", f'resolve = "{host}:{PORT}:127.0.0.1"',
        ]  # fmt: skip
        if cookie:
            config.append(f'cookie = "medforge_session={cookie}"')
        if body is not None:
            config += ['header = "Content-Type: application/json"', f"data = {json.dumps(json.dumps(body))}"]
        answer = self.ask("curl --config -", stdin="\n".join(config).encode())
        if answer.code != 0:
            return Reply(0, {}, answer.stderr)
        head, _, text = answer.stdout.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.splitlines()
        headers: dict[str, str] = {}
        for key, _, value in (line.partition(":") for line in lines):
            headers[key.lower()] = f"{headers.get(key.lower(), '')}\n{value.strip()}".strip()
        return Reply(int(first.split()[1]), headers, text)

    def sign_up(self, address: str) -> str:
        """A new account's cookie; an old one's where it exists."""
        credentials = {"email": address, "password": PASSWORD}
        reply = self.send("POST", "api", "/api/v1/auth/signup", body=credentials)
        if reply.status == 409:
            reply = self.send("POST", "api", "/api/v1/auth/login", body=credentials)
        assert reply.status in (200, 201), reply
        found = re.search(r"medforge_session=([^;]+)", reply.headers["set-cookie"])
        assert found, reply.headers
        return found[1]

    def start_session(self, cookie: str) -> dict[str, Any]:
        reply = self.send("POST", "api", "/api/v1/sessions", cookie, {})
        assert reply.status == 201, reply
        session: dict[str, Any] = reply.data["session"]
        return session

    def session(self, session: dict[str, Any], cookie: str) -> dict[str, Any]:
        """As it is now."""
        told: dict[str, Any] = self.get("api", f"/api/v1/sessions/{session['id']}", cookie).data["session"]
        return told

    def stop_session(self, session: dict[str, Any], cookie: str) -> dict[str, Any]:
        """Stop it and wait for its end."""
        reply = self.send("POST", "api", f"/api/v1/sessions/{session['id']}/stop", cookie)
        assert reply.status == 202, reply
        return self.until_ended(session, cookie)

    def until_ended(self, session: dict[str, Any], cookie: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            reply = self.get("api", f"/api/v1/sessions/{session['id']}", cookie)
            if reply.status != 200:  # Docker is restarted, and Caddy with it
                return None
            seen: dict[str, Any] = reply.data["session"]
            return seen if seen["status"] in ("stopped", "error") else None

        return self.until(f"the end of session {session['slug']}", ended)

    def inside(self, session: dict[str, Any], command: str) -> Answer:
        """A shell command in the session's container, as the session's user."""
        return self.ask(f"docker exec mf-session-{session['slug']} sh -c {shlex.quote(command)}")
