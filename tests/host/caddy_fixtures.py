"""The fixture `site`: a running Caddy between scripted ends, shared by all modules that name this one as plugin."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.caddy_site import (
    CaddySite,
    ScriptedServer,
    admit,
    answer,
    caddy_environment,
    caddy_network,
    container,
    random_slug,
    relay,
)


@pytest.fixture(scope="session")
def running_site() -> Iterator[CaddySite]:
    directory = Path(tempfile.mkdtemp(prefix="mfcd-"))
    directory.chmod(0o755)
    slugs = (random_slug(), random_slug())
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        network, address = stack.enter_context(caddy_network())
        environment = caddy_environment(network, address, directory)
        facade = ScriptedServer(directory / "facade" / "facade.sock")
        session = ScriptedServer(directory / "session.sock")
        for server in (facade, session):
            server.start()
            stack.callback(server.stop)
        stack.enter_context(relay(network, directory, slugs))
        stack.callback(container, "down", environment)
        made = container("up", environment)
        assert made.returncode == 0, made.stderr
        authority = directory / "state" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        port = int(environment["MEDFORGE_HTTPS_PORT"])
        yield CaddySite(port, environment, authority, facade, session, slugs)


@pytest.fixture
def site(running_site: CaddySite) -> Iterator[CaddySite]:
    """The running site with a facade that admits everyone and a session that answers 200 to everything."""
    for server in (running_site.facade, running_site.session):
        server.stop()
        server.start()
        server.seen.clear()
        server.connections = 0
        server.streams = False
    running_site.facade.script = admit
    running_site.session.script = answer(200, body=b"session")
    yield running_site
    while running_site.opened:
        running_site.opened.pop().close()
