"""Owns a real Caddy between scripted ends: the facade and the sessions are servers of the test, which see every byte.

The site is made by `deploy/caddy/container` as in production, on a network of its own. Session names resolve through
Docker to one relay container, which passes every connection on to the test's socket. Test modules get it with
`pytest_plugins = ["tests.host.caddy_fixtures"]` and the fixture `site`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "deploy" / "caddy" / "container"
CADDY_UID = 65532
PACK_IMAGE = "medforge-pack-default:local"  # has Python

# Passes every connection to port 8080 on to the Unix socket of the test.
RELAY = """
import asyncio

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()

async def serve(reader, writer):
    try:
        there_reader, there_writer = await asyncio.open_unix_connection("/test/session.sock")
    except OSError:
        return writer.transport.abort()
    await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
    writer.close()
    there_writer.close()

async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 8080)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Message:
    """A request or an answer as it came over the wire: `start` is its first line."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        found = self.values(name)
        assert len(found) < 2, (name, found)
        return found[0] if found else None


class Wire:
    """A connection, read in HTTP/1.1 messages."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")
        self.closed = threading.Event()

    def head(self) -> Message | None:
        """The next message without its body, or None at the end."""
        start = self.file.readline()
        if not start.endswith(b"\r\n"):
            return None
        headers = []
        while (line := self.file.readline()) != b"\r\n":
            if not line:
                return None
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name, value.strip(" \t\r\n")))
        return Message(start.decode("latin-1").rstrip("\r\n"), tuple(headers))

    def body(self, head: Message, *, to_end: bool) -> bytes:
        """The body that `head` announces; `to_end`: without a length it lasts until the connection ends."""
        if (head.value("Transfer-Encoding") or "").lower() == "chunked":
            whole = b""
            while size := int(self.file.readline().split(b";")[0], 16):
                whole += self.file.read(size)
                self.file.readline()
            while self.file.readline() not in (b"\r\n", b""):
                pass
            return whole
        length = head.value("Content-Length")
        if length is not None:
            return self.file.read(int(length))
        return self.file.read() if to_end else b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.file.close()
        self.sock.close()
        self.closed.set()


Script = Callable[[Message, Wire], None]


def answer(status: int, *headers: tuple[str, str], body: bytes = b"", length: bool = True) -> Script:
    """A script that answers every request alike."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def script(_request: Message, wire: Wire) -> None:
        wire.send(whole)

    return script


def admit(request: Message, wire: Wire) -> None:
    """What the facade answers to the owner of the session that the host names."""
    slug = (request.value("Host") or "").removeprefix("s-").partition(".")[0]
    answer(200, ("X-Upstream", f"mf-session-{slug}:8080"))(request, wire)


class ScriptedServer:
    """An HTTP/1.1 server on a Unix socket that does what `script` says and records in `seen` what arrived.

    With `streams` the script gets the request without its body and reads it itself. `open` are the present connections.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.script: Script = answer(200)
        self.streams = False
        self.seen: list[Message] = []
        self.connections = 0
        self.open: set[Wire] = set()
        self._listener: socket.socket | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self.path.chmod(0o666)
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Ends as a stopped process does: listener, socket file and every connection are gone."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        for wire in list(self.open):
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
            wire.closed.wait(5)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(Wire(sock),), daemon=True).start()

    def _serve(self, wire: Wire) -> None:
        self.open.add(wire)
        try:
            while (head := wire.head()) is not None:
                if not self.streams:
                    head = Message(head.start, head.headers, wire.body(head, to_end=False))
                self.seen.append(head)
                self.script(head, wire)
        except (OSError, ValueError):
            pass  # the peer went away, or the script closed the wire
        finally:
            self.open.discard(wire)
            wire.close()


@dataclass
class CaddySite:
    """The running site. `slugs` are names that resolve; the fixture `site` gives it with fresh scripts."""

    port: int
    environment: dict[str, str]
    authority: Path
    facade: ScriptedServer
    session: ScriptedServer
    slugs: tuple[str, ...]
    opened: list[Wire] = field(default_factory=list)

    @property
    def slug(self) -> str:
        return self.slugs[0]

    @property
    def host(self) -> str:
        return self.host_of(self.slug)

    def host_of(self, slug: str) -> str:
        return f"s-{slug}.medforge.localhost:{self.port}"

    @property
    def platform(self) -> str:
        return f"medforge.localhost:{self.port}"

    def connect(self, host: str | None = None) -> Wire:
        """A TLS connection, verified against the site's own authority; closed after the test."""
        name = (host or self.host).partition(":")[0]
        context = ssl.create_default_context(cafile=str(self.authority))
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(context.wrap_socket(sock, server_hostname=name))
        self.opened.append(wire)
        return wire

    def get(
        self,
        target: str = "/",
        *headers: tuple[str, str],
        host: str | None = None,
        method: str = "GET",
        body: bytes = b"",
    ) -> Message:
        """One request on a connection of its own; `target` and `headers` go out byte for byte (latin-1)."""
        wire = self.connect(host)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host or self.host}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        head = wire.head()
        assert head is not None, "the connection ended without an answer"
        return Message(head.start, head.headers, b"" if method == "HEAD" else wire.body(head, to_end=True))

    def asked(self) -> list[Message]:
        """The authorization requests that the facade got."""
        return [seen for seen in self.facade.seen if seen.target == "/api/v1/auth/session-proxy"]


def run_docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)


def docker(*arguments: str, check: bool = True) -> str:
    done = run_docker(*arguments)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def random_slug() -> str:
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(8))


def container(verb: str, environment: dict[str, str], script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    """`deploy/caddy/container <verb>` with nothing in its environment but PATH and what is given."""
    return subprocess.run(
        [str(script), verb],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def caddy_network() -> Iterator[tuple[str, str]]:
    """A Docker network in 172.28.48.0/20; yields its name and an address on it that Docker gives to nobody else."""
    name = f"mfcd-{secrets.token_hex(4)}"
    for third in range(48, 64):
        subnet = f"172.28.{third}"
        made = run_docker("network", "create", "--subnet", f"{subnet}.0/24", "--ip-range", f"{subnet}.128/25", name)
        if "overlaps" not in made.stderr:
            break
    assert made.returncode == 0, made.stderr
    try:
        yield name, f"{subnet}.2"
    finally:
        docker("network", "rm", name, check=False)


def caddy_environment(network: str, address: str, directory: Path) -> dict[str, str]:
    """For `container`: a name, a port and directories of its own."""
    facade = directory / "facade"
    facade.mkdir(exist_ok=True)
    facade.chmod(0o755)
    given = {"MEDFORGE_CADDY_IMAGE": os.environ["MEDFORGE_CADDY_IMAGE"]} if "MEDFORGE_CADDY_IMAGE" in os.environ else {}
    return {
        **given,
        "MEDFORGE_CADDY_NAME": f"mfcd-caddy-{network.removeprefix('mfcd-')}",
        "MEDFORGE_CADDY_USER": f"{CADDY_UID}:{CADDY_UID}",
        "MEDFORGE_NETWORK": network,
        "MEDFORGE_CADDY_ADDRESS": address,
        "MEDFORGE_HTTPS_PORT": str(free_port()),
        "MEDFORGE_FACADE_SOCKET_DIR": str(facade),
        "MEDFORGE_CADDY_STATE": str(directory / "state"),
        "MEDFORGE_INSTANCE": network,
    }


@contextlib.contextmanager
def relay(network: str, directory: Path, slugs: tuple[str, ...]) -> Iterator[None]:
    """Makes the sessions' names resolve on the network and lead to `directory`/session.sock."""
    name = f"mfcd-relay-{slugs[0]}"
    aliases = [argument for slug in slugs for argument in ("--network-alias", f"mf-session-{slug}")]
    mount = f"type=bind,source={directory},target=/test"
    docker(
        *("run", "--detach", "--name", name, "--network", network, *aliases, "--mount", mount),
        *("--entrypoint", "python3", PACK_IMAGE, "-c", RELAY),
    )
    try:
        # `docker logs --follow` ends with the container, so a relay that dies is noticed too.
        with subprocess.Popen(["docker", "logs", "--follow", name], stdout=subprocess.PIPE, text=True) as logs:
            assert logs.stdout is not None
            assert logs.stdout.readline() == "ready\n", "the relay does not start"
            logs.terminate()
        yield
    finally:
        docker("rm", "--force", name, check=False)
