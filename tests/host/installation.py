"""Owns a whole installation for tests: `ops/up` under a name, subnet, pool and port of its own, and people who use it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

ROOT = Path(__file__).resolve().parents[2]
# Runs with different numbers, from 0 to 9, can stand side by side on one host.
_NUMBER = int(os.environ.get("MEDFORGE_TEST_NUMBER", "0"))
INSTANCE = f"mftest{_NUMBER or ''}"
PORT = 18443 + _NUMBER
_PREFIX = f"172.29.{250 - _NUMBER}"
SUBNET = f"{_PREFIX}.0/24"
GATEWAY, PROXY = f"{_PREFIX}.1", f"{_PREFIX}.2"
POOL = f"{INSTANCE}pool"
QUOTA_BYTES = 192 * 1024**2
PASSWORD = "correct horse battery staple"


class Installation:
    """Paths, addresses and commands of the installation under test."""

    network = f"{INSTANCE}-public-sessions"
    caddy = f"{INSTANCE}-caddy"
    daemon_socket = Path(f"/run/{INSTANCE}/medforged.sock")
    daemon_log = Path(f"/var/log/{INSTANCE}/daemon.log")
    facade_log = Path(f"/var/log/{INSTANCE}/facade.log")
    facade_database = Path(f"/var/lib/{INSTANCE}-facade/facade.db")
    authority = Path(f"/var/lib/{INSTANCE}-caddy/caddy/pki/authorities/local/root.crt")
    origin = f"https://medforge.localhost:{PORT}"
    api = f"https://api.medforge.localhost:{PORT}/api/v1"

    def ops(self, script: str, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's script for this installation."""
        variables = {
            "MEDFORGE_INSTANCE": INSTANCE,
            "MEDFORGE_HTTPS_PORT": str(PORT),
            "MEDFORGE_SUBNET": SUBNET,
            "MEDFORGE_POOL": POOL,
            "MEDFORGE_QUOTA_BYTES": str(QUOTA_BYTES),
            **env,
        }
        done = subprocess.run(
            [str(ROOT / "ops" / script), *arguments],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def up(self) -> None:
        self.ops("up")

    def clear(self) -> None:
        """Remove what a run that was killed has left; never what is mounted."""
        if Path(f"/run/{INSTANCE}/ledger.json").exists():
            self.ops("down", "--force")
        for path in (*self._states(), Path("/", POOL)):
            if not any(f" {path}" in line for line in Path("/proc/mounts").read_text().splitlines()):
                shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def _states() -> tuple[Path, ...]:
        return tuple(Path(f"/var/lib/{INSTANCE}{suffix}") for suffix in ("", "-facade", "-caddy"))

    def down(self) -> None:
        """Take it down and away, data included."""
        pool_file = Path(f"/var/lib/{INSTANCE}/pool.img")
        self.ops("down")
        for path in self._states():
            shutil.rmtree(path)
        assert not pool_file.exists()

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """medforgectl as root."""
        done = subprocess.run(
            [str(ROOT / ".venv/bin/medforgectl"), "--socket", str(self.daemon_socket), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def process(self, name: str) -> int:
        """The pid of `daemon` or `facade` itself, as its keeper notes it."""
        folder = f"/run/{INSTANCE}-facade" if name == "facade" else f"/run/{INSTANCE}"
        return int(Path(folder, f"{name}.pid").read_text().split()[0])

    def keeper(self, name: str) -> int:
        """The pid that `ops/up` noted for it: the process that holds its socket and starts it again."""
        return int(json.loads(Path(f"/run/{INSTANCE}/ledger.json").read_text())[name]["pid"])

    def events(self, **fields: object) -> list[dict[str, Any]]:
        """What the daemon's log says with these fields."""
        entries = (json.loads(line) for line in self.daemon_log.read_text().splitlines() if line.startswith("{"))
        return [entry for entry in entries if all(entry.get(name) == value for name, value in fields.items())]

    @asynccontextmanager
    async def visitor(self) -> AsyncIterator[Visitor]:
        trusted = ssl.create_default_context(cafile=str(self.authority))
        connector = aiohttp.TCPConnector(resolver=_Loopback(), ssl=trusted)
        # Cookies are handed over explicitly, so that a test says what it sends.
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
            yield Visitor(self, http)
            # A TLS goodbye that Caddy answers late would outlive the test's event loop.
            await connector.close(abort_ssl=True)

    @asynccontextmanager
    async def account(self) -> AsyncIterator[Visitor]:
        async with self.visitor() as somebody:
            await somebody.sign_up()
            try:
                yield somebody
            finally:
                await somebody.stop_all()


class _Loopback(AbstractResolver):
    """Every name under localhost is this machine (RFC 6761), whatever the host's resolver makes of it."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class Visitor:
    """Somebody with a browser: what they send is exactly what a test says, plus their login."""

    installation: Installation
    http: aiohttp.ClientSession
    cookie: str | None = None
    user_id: str = ""
    sessions: list[dict[str, Any]] = field(default_factory=list)

    async def ask(
        self, method: str, url: str, *, json: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, aiohttp.typedefs.LooseHeaders]:
        sent = {**({"Cookie": f"medforge_session={self.cookie}"} if self.cookie else {}), **(headers or {})}
        async with self.http.request(method, url, json=json, headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def sign_up(self) -> None:
        account = {"email": f"{uuid4().hex[:12]}@example.org", "password": PASSWORD}
        url = f"{self.installation.origin}/api/v1/auth/signup"
        async with self.http.post(url, json=account) as answer:
            body = await answer.json()
            assert answer.status == 201, body
            self.cookie = answer.cookies["medforge_session"].value
            self.user_id = body["data"]["user_id"]

    async def create(self) -> dict[str, Any]:
        """A running session's JSON."""
        status, text, _ = await self.ask("POST", f"{self.installation.api}/sessions", json={})
        assert status == 201, text
        body = json.loads(text)["data"]
        assert body["message"] == "Session started."
        self.sessions.append(body["session"])
        session: dict[str, Any] = body["session"]
        return session

    async def read(self, session: dict[str, Any]) -> dict[str, Any]:
        status, text, _ = await self.ask("GET", f"{self.installation.api}/sessions/{session['id']}")
        assert status == 200, text
        read: dict[str, Any] = json.loads(text)["data"]["session"]
        return read

    async def stop(self, session: dict[str, Any]) -> dict[str, Any]:
        """Ask it to stop and wait until it has ended."""
        status, text, _ = await self.ask("POST", f"{self.installation.api}/sessions/{session['id']}/stop")
        assert status == 202, text

        async def has_ended() -> bool:
            return (await self.read(session))["status"] in ("stopped", "error")

        await until(has_ended)
        return await self.read(session)

    async def stop_all(self) -> None:
        for session in self.sessions:
            if (await self.read(session))["status"] not in ("stopped", "error"):
                await self.stop(session)


def host_of(session: dict[str, Any]) -> str:
    """The session's public address."""
    return f"https://s-{session['slug']}.medforge.localhost:{PORT}"


def container_of(session: dict[str, Any]) -> str:
    return f"mf-session-{session['slug']}"


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def inside(session: dict[str, Any], *argv: str, user: str = "1000:1000") -> subprocess.CompletedProcess[str]:
    """Run a program in a session's container, as the tenant would in a terminal."""
    return subprocess.run(
        ["docker", "exec", "--user", user, container_of(session), *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait for a condition; the limit is for what never happens."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)
