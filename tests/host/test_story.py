"""The story of two people with a session each: routing, workspaces, quota, snapshots and GPUs, all of it real."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import ssl
import subprocess
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from tests.host.installation import (
    PASSWORD,
    PORT,
    QUOTA_BYTES,
    Installation,
    Visitor,
    container_of,
    docker,
    host_of,
    inside,
)

pytestmark = pytest.mark.host


async def test_two_people_get_two_gpus_and_two_containers(
    installation: Installation, alice: Visitor, bob: Visitor
) -> None:
    a, b = await asyncio.gather(alice.create(), bob.create())
    assert a["status"] == b["status"] == "running"
    assert a["gpu_id"] != b["gpu_id"]
    assert (a["user_id"], b["user_id"]) == (alice.user_id, bob.user_id)
    held = {gpu["id"]: gpu["session_id"] for gpu in json.loads(installation.ctl("gpus", "-o", "json").stdout)["gpus"]}
    assert (held[a["gpu_id"]], held[b["gpu_id"]]) == (a["id"], b["id"])
    for session, person in ((a, alice), (b, bob)):
        environment = dict(
            line.partition("=")[::2] for line in inside(session, "env").stdout.splitlines() if "=" in line
        )
        assert environment["MEDFORGE_SESSION_ID"] == session["id"]
        assert environment["MEDFORGE_USER_ID"] == person.user_id
        assert environment["MEDFORGE_TIER"] == "PUBLIC"
        assert environment["MEDFORGE_GPU_ID"] == str(session["gpu_id"])
        assert environment["NVIDIA_VISIBLE_DEVICES"].startswith("GPU-")
        assert environment["CUDA_VISIBLE_DEVICES"] == "0"
        assert container_of(session) in docker("ps", "--format", "{{.Names}}").split()


async def test_the_wildcard_root_knows_who_may_enter(
    installation: Installation, visitor: Visitor, alice: Visitor, bob: Visitor
) -> None:
    session = await alice.create()
    root = host_of(session) + "/"
    status, text, headers = await visitor.ask("GET", root)
    assert status == 401
    problem = json.loads(text)
    assert (problem["status"], problem["detail"]) == (401, "Authentication required.")
    assert headers["Content-Type"].startswith("application/problem+json")
    status, text, _ = await bob.ask("GET", root)
    assert (status, json.loads(text)["detail"]) == (403, "Session access denied.")
    status, text, _ = await alice.ask("GET", root + "?folder=/workspace")
    assert status == 200
    assert "workbench" in text
    status, _, _ = await alice.ask("GET", f"https://s-zzzzzzzz.medforge.localhost:{PORT}/")
    assert status == 404
    with sqlite3.connect(installation.facade_database) as raw:
        raw.execute("UPDATE users SET is_admin = 1 WHERE id = ?", (UUID(bob.user_id).hex,))
        assert raw.execute("SELECT changes()").fetchone() == (1,)
    raw.close()
    async with installation.visitor() as admin:
        # What the facade keeps of bob's login need not know of his promotion yet; a login after it must.
        admin.cookie = await _log_in_as(installation, bob)
        status, _, _ = await admin.ask("GET", root + "?folder=/workspace")
        assert status == 200
    await alice.stop(session)
    status, text, _ = await alice.ask("GET", root)
    assert (status, json.loads(text)["detail"]) == (404, "Session not found.")


async def _log_in_as(installation: Installation, person: Visitor) -> str:
    status, text, _ = await person.ask("GET", f"{installation.api}/me")
    assert status == 200
    account = {"email": json.loads(text)["data"]["email"], "password": PASSWORD}
    async with person.http.post(f"{installation.api}/auth/login", json=account) as answer:
        assert answer.status == 200
        return answer.cookies["medforge_session"].value


async def test_a_browser_is_sent_to_the_login_page_and_back(alice: Visitor, visitor: Visitor) -> None:
    session = await alice.create()
    browser = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    status, _, headers = await visitor.ask("GET", f"{host_of(session)}/some/page?x=1", headers=browser)
    assert status == 302
    assert headers["Location"].startswith(f"https://medforge.localhost:{PORT}/login?next=")
    assert session["slug"] in headers["Location"]


async def test_a_spoofed_upstream_is_ignored(alice: Visitor, bob: Visitor) -> None:
    a, b = await alice.create(), await bob.create()
    server = "from http.server import *; HTTPServer(('127.0.0.1', 9999), SimpleHTTPRequestHandler).serve_forever()"
    for session, word in ((a, "of-alice"), (b, "of-bob")):
        inside(session, "sh", "-c", f"echo {word} > /workspace/word")
        docker("exec", "--detach", "--workdir", "/workspace", container_of(session), "python3", "-c", server)

    async def word(visitor: Visitor, session: dict[str, str], headers: dict[str, str] | None = None) -> str:
        for _ in range(200):
            status, text, _ = await visitor.ask("GET", f"{host_of(session)}/proxy/9999/word", headers=headers)
            if status == 200:
                return text.strip()
            await asyncio.sleep(0.05)
        raise AssertionError("the program in the session never answered")

    assert await word(bob, b) == "of-bob", "the check itself must be able to see bob's session"
    for name in ("X-Upstream", "x-upstream", "X_Upstream", "X-Medforge-Upstream", "X-Forwarded-Host"):
        value = f"s-{b['slug']}.medforge.localhost" if name == "X-Forwarded-Host" else f"mf-session-{b['slug']}:8080"
        assert await word(alice, a, {name: value}) == "of-alice"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/auth/session-proxy",
        "/api/v1/auth/session-proxy/",
        "/API/V1/Auth/Session-Proxy",
        "//api/v1/auth/session-proxy",
        "/api//v1/auth//session-proxy",
        "/./api/v1/auth/session-proxy",
        "/x/../api/v1/auth/session-proxy",
        "/api/v1/auth/%73ession-proxy",
        "/%61pi/v1/auth/session%2Dproxy",
        "/api%2Fv1%2Fauth%2Fsession-proxy",
        "/api/v1/auth/%2e/session-proxy",
        "/api/v1/auth/session-proxy?x=1",
        "/api/v2/auth/session-proxy",
        "/api/v1/auth/session-proxy;x=1",
        "/api/v1/auth\\session-proxy",
        "/api/v1/auth/%2573ession-proxy",
    ],
)
async def test_session_proxy_is_blocked_on_wildcard_hosts_in_every_spelling(
    installation: Installation, path: str
) -> None:
    # No session is needed: the block comes before anybody is asked.
    request = f"GET {path} HTTP/1.1\r\nHost: s-abcdefgh.medforge.localhost\r\nConnection: close\r\n\r\n"
    context = ssl.create_default_context(cafile=str(installation.authority))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", PORT, ssl=context, server_hostname="s-abcdefgh.medforge.localhost"
    )
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"403", answer
    assert body.strip() == b"Forbidden"


async def test_the_platform_cookie_never_reaches_the_session(alice: Visitor) -> None:
    session = await alice.create()
    server = (
        "from http.server import *\n"
        "class H(BaseHTTPRequestHandler):\n"
        "  def do_GET(self):\n"
        "    text=str(self.headers).encode()\n"
        "    self.send_response(200); self.send_header('Set-Cookie','medforge_session=stolen; Domain=.medforge.localhost')\n"
        "    self.send_header('Set-Cookie','mine=1; Domain=.medforge.localhost'); self.end_headers(); self.wfile.write(text)\n"
        "HTTPServer(('127.0.0.1', 9998), H).serve_forever()"
    )
    docker("exec", "--detach", container_of(session), "python3", "-c", server)
    url = f"{host_of(session)}/proxy/9998/"
    for _ in range(200):
        status, text, headers = await alice.ask(
            "GET", url, headers={"Cookie": f"a=1; medforge_session={alice.cookie}; b=2"}
        )
        if status == 200:
            break
        await asyncio.sleep(0.05)
    assert status == 200
    assert "a=1" in text
    assert "b=2" in text
    assert "medforge_session" not in text
    assert alice.cookie is not None
    assert alice.cookie not in text
    kept = " ".join(headers.getall("Set-Cookie", []))
    assert "medforge_session" not in kept
    assert "omain" not in kept


async def test_the_workbench_loads_and_its_websocket_opens(alice: Visitor) -> None:
    session = await alice.create()
    status, text, _ = await alice.ask("GET", f"{host_of(session)}/?folder=/workspace")
    assert status == 200
    assert "code-server" in text
    scripts = re.findall(r'(?:src|href)="\.?(/?[^"]+\.(?:js|css))"', text)
    assert scripts, "the workbench names no script"
    for script in scripts[:5]:
        status, body, _ = await alice.ask("GET", f"{host_of(session)}/{script.lstrip('./')}")
        assert status == 200, script
        assert body
    (quality,) = set(re.findall(r"/?(stable-[0-9a-f]{40})/", text)) or {""}
    assert quality, "the workbench names no commit"
    assert alice.cookie is not None
    url = host_of(session).replace("https", "wss")
    query = "reconnectionToken=11111111-2222-4333-8444-555555555555&reconnection=false&skipWebSocketFrames=false"
    async with alice.http.ws_connect(
        f"{url}/{quality}?{query}",
        headers={"Cookie": f"medforge_session={alice.cookie}", "Origin": host_of(session)},
        # The IDE's server answers no close frame.
        timeout=aiohttp.ClientWSTimeout(ws_close=0.1),
    ) as websocket:
        assert not websocket.closed
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await alice.http.ws_connect(f"{url}/{quality}?{query}", headers={"Origin": host_of(session)})
    assert refused.value.status == 401


async def test_files_are_kept_in_the_workspace_and_the_snapshot(alice: Visitor) -> None:
    session = await alice.create()
    assert inside(session, "sh", "-c", "echo alpha > /workspace/note && cat /workspace/note").stdout == "alpha\n"
    dataset = session["workspace_zfs"]
    mountpoint = Path("/", dataset)
    assert (mountpoint / "note").read_text() == "alpha\n"
    assert inside(session, "stat", "-c", "%u:%g %a", "/workspace").stdout == "1000:1000 700\n"
    ended = await alice.stop(session)
    assert (ended["status"], ended["error_message"]) == ("stopped", None)
    assert ended["stopped_at"] is not None
    snapshots = [name for name in _zfs("list", "-H", "-t", "snapshot", "-o", "name") if name.startswith(f"{dataset}@")]
    assert len(snapshots) == 1
    assert snapshots[0].removeprefix(f"{dataset}@stop-").isdigit()
    assert (mountpoint / "note").read_text() == "alpha\n"
    assert container_of(session) not in docker("ps", "--all", "--format", "{{.Names}}")


async def test_the_quota_is_enforced(alice: Visitor, bob: Visitor) -> None:
    session, other = await alice.create(), await bob.create()
    filled = inside(
        session, "dd", "if=/dev/urandom", "of=/workspace/big", "bs=1M", f"count={QUOTA_BYTES // 2**20 + 64}"
    )
    assert filled.returncode != 0
    assert "quota exceeded" in filled.stderr.lower() or "no space left" in filled.stderr.lower()
    size = int(inside(session, "stat", "-c", "%s", "/workspace/big").stdout)
    assert size <= QUOTA_BYTES
    # Nobody else's room is taken, and what cannot be written does not end the session.
    assert inside(other, "dd", "if=/dev/urandom", "of=/workspace/ok", "bs=1M", "count=8").returncode == 0
    assert (await alice.read(session))["status"] == "running"
    inside(session, "rm", "/workspace/big")


async def test_a_stopped_sessions_gpu_is_free_again(installation: Installation, alice: Visitor) -> None:
    session = await alice.create()
    await alice.stop(session)
    gpus = json.loads(installation.ctl("gpus", "-o", "json").stdout)["gpus"]
    assert [gpu["session_id"] for gpu in gpus if gpu["id"] == session["gpu_id"]] == [None]
    again = await alice.create()
    assert again["gpu_id"] == session["gpu_id"]
    assert again["slug"] != session["slug"]


async def test_no_502_between_the_201_and_the_first_page(alice: Visitor, bob: Visitor) -> None:
    async def rounds(person: Visitor) -> list[int]:
        seen = []
        for _ in range(10):
            session = await person.create()
            status, text, _ = await person.ask("GET", f"{host_of(session)}/?folder=/workspace")
            seen.append(status)
            assert "workbench" in text
            await person.stop(session)
        return seen

    first, second = await asyncio.gather(rounds(alice), rounds(bob))
    assert first + second == [200] * 20


async def test_the_limit_of_one_session_a_person(installation: Installation, alice: Visitor) -> None:
    await alice.create()
    status, text, _ = await alice.ask("POST", f"{installation.api}/sessions", json={})
    assert (status, json.loads(text)["detail"]) == (409, "Concurrent session limit reached")
    status, text, _ = await alice.ask("POST", f"{installation.api}/sessions", json={"tier": "private"})
    assert status == 501


async def test_the_log_tells_a_sessions_whole_story(installation: Installation, alice: Visitor) -> None:
    session = await alice.create()
    await alice.stop(session)
    story = installation.events(slug=session["slug"])
    assert [entry["event"] for entry in story if entry["event"] in ("session.start", "session.stop")] == [
        "session.start",
        "session.stop",
    ]
    for entry in story:
        assert entry["session_id"] == session["id"]
        assert entry["user_id"] == alice.user_id
        assert entry["gpu_id"] == session["gpu_id"]
    assert story[-1]["reason"] == "requested"
    assert alice.cookie is not None
    for log in (installation.daemon_log, installation.facade_log):
        assert alice.cookie not in log.read_text()


def _zfs(*arguments: str) -> list[str]:
    return subprocess.run(["zfs", *arguments], capture_output=True, text=True, check=True).stdout.splitlines()
