"""`deploy/caddy/container`: makes a hardened container, leaves a right one alone, and nothing half-made behind."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.caddy_site import (
    CADDY_UID,
    caddy_environment,
    caddy_network,
    container,
    docker,
    free_port,
)

pytestmark = pytest.mark.host


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    directory = Path(tempfile.mkdtemp(prefix="mfcd-"))
    directory.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        network, address = stack.enter_context(caddy_network())
        made = caddy_environment(network, address, directory)
        stack.callback(container, "down", made)
        yield made


def inspect(environment: dict[str, str]) -> dict[str, Any]:
    [found] = json.loads(docker("container", "inspect", environment["MEDFORGE_CADDY_NAME"]))
    assert isinstance(found, dict)
    return found


def names(environment: dict[str, str]) -> list[str]:
    """Containers of this test, whatever their suffix."""
    return docker(
        "ps", "--all", "--filter", f"name={environment['MEDFORGE_CADDY_NAME']}", "--format", "{{.Names}}"
    ).split()


def up(environment: dict[str, str]) -> dict[str, Any]:
    done = container("up", environment)
    assert done.returncode == 0, done.stderr
    return inspect(environment)


def test_the_container_can_do_nothing_but_serve(environment: dict[str, str]) -> None:
    made = up(environment)
    host = made["HostConfig"]

    assert made["Config"]["User"] == f"{CADDY_UID}:{CADDY_UID}"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    mounts = {mount["Target"]: mount.get("ReadOnly", False) for mount in host["Mounts"]}
    assert mounts == {"/etc/caddy/Caddyfile": True, "/run/medforge-facade": True, "/data": False}
    assert made["Config"]["Labels"]["dev.medforge.instance"] == environment["MEDFORGE_INSTANCE"]
    [network] = made["NetworkSettings"]["Networks"].values()
    assert network["IPAddress"] == environment["MEDFORGE_CADDY_ADDRESS"]


def test_nothing_but_loopback_is_published_for_localhost_and_everything_for_a_domain(
    environment: dict[str, str],
) -> None:
    port = environment["MEDFORGE_HTTPS_PORT"]
    assert up(environment)["HostConfig"]["PortBindings"] == {"8443/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}

    environment["MEDFORGE_DOMAIN"] = "example.test"
    assert up(environment)["HostConfig"]["PortBindings"] == {"8443/tcp": [{"HostIp": "", "HostPort": port}]}


def test_neither_an_admin_interface_nor_anything_else_listens(environment: dict[str, str]) -> None:
    up(environment)
    listening = docker("exec", environment["MEDFORGE_CADDY_NAME"], "cat", "/proc/net/tcp", "/proc/net/tcp6")
    rows = [line.split() for line in listening.splitlines()]
    ports = {(row[1].split(":")[0], int(row[1].split(":")[1], 16)) for row in rows if row[3] == "0A"}
    docker_dns = {entry for entry in ports if entry[0] == "0B00007F"}

    assert {port for _, port in ports - docker_dns} == {8443, 8080}
    assert ("0100007F", 8080) in ports, "the redirect is on loopback unless it is wanted"


def test_a_right_one_is_left_alone_and_a_wrong_one_replaced(environment: dict[str, str]) -> None:
    first = up(environment)["Id"]
    assert up(environment)["Id"] == first
    assert container("status", environment).returncode == 0

    environment["MEDFORGE_HTTPS_PORT"] = str(free_port())
    differs = container("status", environment)
    assert (differs.returncode, "not as configured" in differs.stderr) == (3, True)
    second = up(environment)["Id"]
    assert second != first

    docker("kill", environment["MEDFORGE_CADDY_NAME"])
    assert container("status", environment).returncode == 3
    assert up(environment)["State"]["Running"] is True
    assert names(environment) == [environment["MEDFORGE_CADDY_NAME"]]


def test_down_removes_it_and_may_be_repeated_and_certificates_stay(environment: dict[str, str]) -> None:
    up(environment)
    root = Path(environment["MEDFORGE_CADDY_STATE"], "caddy/pki/authorities/local/root.crt")
    authority = root.read_bytes()

    assert container("down", environment).returncode == 0
    assert container("down", environment).returncode == 0
    assert names(environment) == []
    assert container("status", environment).returncode == 3

    up(environment)
    assert root.read_bytes() == authority


def test_a_taken_port_is_one_clear_sentence_and_nothing_stays(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environment["MEDFORGE_HTTPS_PORT"]))):
        failed = container("up", environment)

    port = environment["MEDFORGE_HTTPS_PORT"]
    assert failed.returncode == 1
    [line] = failed.stderr.splitlines()
    assert f"cannot publish port {port}: something else listens there; stop it, or set MEDFORGE_HTTPS_PORT" in line
    assert names(environment) == []


def test_when_the_new_one_cannot_start_the_old_one_goes_on(environment: dict[str, str]) -> None:
    first = up(environment)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = {**environment, "MEDFORGE_HTTPS_PORT": str(taken.getsockname()[1])}
        assert container("up", wanted).returncode == 1

    assert inspect(environment)["Id"] == first["Id"]
    assert container("status", environment).returncode == 0
    assert names(environment) == [environment["MEDFORGE_CADDY_NAME"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MEDFORGE_NETWORK": "mfcd-none"}, "cannot find the Docker network mfcd-none"),
        ({"MEDFORGE_CADDY_IMAGE": "mfcd-none:none"}, "build it with ops/images caddy"),
        ({"MEDFORGE_CADDY_USER": "0:0"}, "cannot run as root"),
        ({"MEDFORGE_CADDY_USER": "caddy"}, "give two numbers"),
        ({"MEDFORGE_FACADE_SOCKET_DIR": "/nowhere"}, "cannot find /nowhere"),
        ({"MEDFORGE_TLS": "/nowhere"}, "cannot read cert.pem and key.pem"),
        ({"MEDFORGE_DOMAIN": "Ex ample"}, "give a domain name"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    environment: dict[str, str], change: dict[str, str], words: str
) -> None:
    failed = container("up", {**environment, **change})

    assert failed.returncode == 1
    assert words in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert names(environment) == []


def test_a_container_of_somebody_else_is_not_touched(environment: dict[str, str]) -> None:
    name = environment["MEDFORGE_CADDY_NAME"]
    image = environment.get("MEDFORGE_CADDY_IMAGE", "medforge-caddy:local")
    docker("create", "--name", name, "--network", "none", image)
    try:
        for verb in ("up", "down"):
            refused = container(verb, environment)
            assert (refused.returncode, "not MedForge's" in refused.stderr) == (1, True)
        assert names(environment) == [name]
    finally:
        docker("rm", name)


def test_the_redirect_is_there_only_when_a_port_is_given(environment: dict[str, str]) -> None:
    http, https = str(free_port()), environment["MEDFORGE_HTTPS_PORT"]
    environment["MEDFORGE_HTTP_PORT"] = http
    up(environment)

    def ask(host: str) -> str:
        with socket.create_connection(("127.0.0.1", int(http)), 10) as sock:
            sock.sendall(f"GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return sock.makefile("rb").read().decode()

    for host in ("medforge.localhost", "api.medforge.localhost", f"s-abcdefgh.medforge.localhost:{http}"):
        got = ask(host)
        assert got.startswith("HTTP/1.1 308 ")
        assert f"Location: https://{host.partition(':')[0]}:{https}/a?b=c\r\n" in got
    assert ask("example.org").startswith("HTTP/1.1 404 ")


def served(environment: dict[str, str], name: str, authority: Path) -> bytes | None:
    """The certificate, in DER, that the name gets; verified."""
    context = ssl.create_default_context(cafile=str(authority))
    where = ("127.0.0.1", int(environment["MEDFORGE_HTTPS_PORT"]))
    with context.wrap_socket(socket.create_connection(where, 10), server_hostname=name) as sock:
        return sock.getpeercert(binary_form=True)


def test_certificates_come_from_the_sites_own_authority_for_any_domain(environment: dict[str, str]) -> None:
    environment["MEDFORGE_DOMAIN"] = "example.test"
    up(environment)
    authority = Path(environment["MEDFORGE_CADDY_STATE"], "caddy/pki/authorities/local/root.crt")

    for name in ("medforge.example.test", "api.medforge.example.test", "s-abcdefgh.medforge.example.test"):
        assert served(environment, name, authority)
    with pytest.raises(ssl.SSLError):
        served(environment, "medforge.localhost", authority)


def self_signed(directory: Path) -> bytes:
    """A certificate for all names of the site in `directory`; gives it in DER."""
    directory.mkdir()
    names = "subjectAltName=DNS:medforge.localhost,DNS:api.medforge.localhost,DNS:*.medforge.localhost"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=own", "-addext", names),
            *("-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")),
        ],
        capture_output=True,
        timeout=30,
        check=True,
    )
    shutil.chown(directory / "key.pem", CADDY_UID, CADDY_UID)
    return ssl.PEM_cert_to_DER_cert((directory / "cert.pem").read_text())


def test_an_operators_own_certificate_is_served(environment: dict[str, str]) -> None:
    own = Path(environment["MEDFORGE_CADDY_STATE"]).parent / "own"
    certificate = self_signed(own)
    environment["MEDFORGE_TLS"] = str(own)
    up(environment)

    for name in ("medforge.localhost", "api.medforge.localhost", "s-abcdefgh.medforge.localhost"):
        assert served(environment, name, own / "cert.pem") == certificate
    assert not Path(environment["MEDFORGE_CADDY_STATE"], "caddy", "certificates").exists()
