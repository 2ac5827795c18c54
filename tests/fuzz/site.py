"""A whole installation to be fuzzed: a real daemon with a simulated host, a real facade, and people who may sign in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from facade.config import Limits
from tests.integration.daemon.conftest import ROOT, await_socket, start_daemon

__all__ = ["Site", "site"]

PASSWORD = "correct horse battery"
SCOPES = ["account:read", "sessions:read", "sessions:write", "admin:read", "admin:write"]
# Nothing is to be refused because of how much is asked.
SETTINGS = {
    "MEDFORGE_FACADE_LISTEN__TCP": "127.0.0.1:0",
    "MEDFORGE_FACADE_PROCESS__LOG_FORMAT": "json",
    "MEDFORGE_FACADE_SESSIONS__MAX_CONCURRENT": "1000",
    **{
        f"MEDFORGE_FACADE_LIMITS__{field.name.upper()}": "65000"
        for field in msgspec.structs.fields(Limits)
        if "_per_" in field.name
    },
}


@dataclass(frozen=True)
class Site:
    """`url` has no slash at its end."""

    url: str
    directory: Path
    facade: subprocess.Popen[bytes]
    daemon: subprocess.Popen[bytes]

    def sign_up(self, email: str, *, admin: bool = False) -> str:
        """A new account; returns its cookie's value."""
        answer = self._post("auth/signup", {"email": email, "password": PASSWORD})
        cookie = str(answer.headers["Set-Cookie"]).partition(";")[0].partition("=")[2]
        if admin:
            with contextlib.closing(sqlite3.connect(self.directory / "facade.db", isolation_level=None)) as connection:
                connection.execute("UPDATE users SET is_admin = 1 WHERE email = ?", (email,))
        return cookie

    def api_token(self, cookie: str) -> str:
        """A token with every scope for the user of the cookie."""
        answer = self._post("me/tokens", {"name": "fuzz", "scopes": SCOPES}, cookie)
        return str(json.load(answer)["data"]["token"])

    def document(self) -> Path:
        """The document that is served, in a file: the host name that a pass asks for is not always the document's."""
        path = self.directory / "openapi.json"
        with urllib.request.urlopen(f"{self.url}/api/v1/openapi.json", timeout=30) as answer:
            path.write_bytes(answer.read())
        return path

    def session_host(self, cookie: str) -> str:
        """The host name of a new session of the cookie's user."""
        answer = self._post("sessions", {}, cookie)
        return f"s-{json.load(answer)['data']['session']['slug']}.medforge.localhost"

    def failures(self) -> list[str]:
        """What must not happen: an end of either program, and what they log as an error."""
        ends = {"facade": self.facade.poll(), "daemon": self.daemon.poll()}
        found = [f"the {name} has ended with {code}" for name, code in ends.items() if code is not None]
        for log in ("facade.log", "daemon.log"):
            for line in (self.directory / log).read_text().splitlines():
                entry = json.loads(line) if line.startswith("{") else {"event": line, "level": "error"}
                if entry.get("level") in ("error", "critical") or "exception" in entry:
                    found.append(f"{log}: {line[:2000]}")
        return found

    def _post(self, path: str, body: dict[str, Any], cookie: str = "") -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Cookie": f"medforge_session={cookie}"},
        )
        return urllib.request.urlopen(request, timeout=30)


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """An installation in this directory, for as long as the context lasts."""
    daemon = start_daemon(directory, "--simulate", str(directory))
    facade = None
    try:
        await_socket(daemon, directory / "medforged.sock", directory / "daemon.log")
        with (directory / "facade.log").open("ab") as log:
            facade = subprocess.Popen(
                [sys.executable, "-c", "from facade.app import main; main()", "--simulate", str(directory)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, **SETTINGS},
            )
        yield Site(f"http://{_address(facade, directory / 'facade.log')}", directory, facade, daemon)
    finally:
        for process in (facade, daemon):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
                process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it says so."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (entry := json.loads(line))["event"] == "facade.started":
                return str(entry["listens"])
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"the facade does not start:\n{log.read_text()}")
