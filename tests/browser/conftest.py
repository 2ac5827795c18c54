"""A browser before the whole site: Chromium, Caddy, the real facade with a scripted daemon, and a scripted IDE.

Test modules name `tests.host.caddy_fixtures` as plugin. The scripted facade of those fixtures makes room for the real one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from facade.auth.passwords import Passwords
from facade.bootstrap import assemble
from facade.config import Daemon, Database, Settings, Site
from facade.server import Runner
from tests.browser.visitor import Platform, ReachableDaemon
from tests.host.caddy_site import REPOSITORY, CaddySite, answer, docker

IDE = b"<!doctype html><title>IDE</title><h1>The IDE</h1>"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture
async def platform(site: CaddySite, tmp_path: Path) -> AsyncIterator[Platform]:
    site.session.script = answer(200, ("Content-Type", "text/html"), body=IDE)
    daemon = ReachableDaemon(tmp_path / "medforged.sock")
    daemon.slugs = site.slugs
    settings = Settings(
        site=Site(domain="localhost", https_port=site.port, web_root=str(REPOSITORY / "web")),
        database=Database(url=f"sqlite+aiosqlite:///{tmp_path / 'facade.db'}"),
        daemon=Daemon(socket=str(daemon.socket)),
    )
    # As cheap as argon2id can be: what is tested is not how long it takes.
    cheap = Passwords(time_cost=1, memory_kib=8, parallelism=1)
    async with contextlib.AsyncExitStack() as stack:
        await daemon.come_back()
        stack.push_async_callback(daemon.go_away)
        facade = await stack.enter_async_context(assemble(settings, passwords=cheap))
        site.facade.stop()
        stack.callback(site.facade.start)
        runner = Runner(facade.app, facade.fast_path, drain_seconds=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.UnixSite(runner, str(site.facade.path)).start()
        site.facade.path.chmod(0o666)
        yield Platform(f"https://{site.platform}/", daemon, site, tmp_path / "facade.db")


@pytest.fixture(scope="session")
def chromium(running_site: CaddySite) -> Iterator[Path]:
    """Chromium in a network namespace that reaches Caddy and nothing else.

    In the host's own, Chromium breaks off what it loads whenever an interface of any container comes or goes.
    """
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert executable is not None, "cannot find a browser: install chromium, or set CHROMIUM to one"
    network, address = running_site.environment["MEDFORGE_NETWORK"], running_site.environment["MEDFORGE_CADDY_ADDRESS"]
    own = str(ip_address(address) + 1)
    bridge = "br-" + docker("network", "inspect", "--format", "{{.Id}}", network)[:12]
    namespace, outside = network, network.replace("mfcd", "mfcb")
    with contextlib.ExitStack() as stack:
        command("ip", "netns", "add", namespace)
        stack.callback(command, "ip", "netns", "delete", namespace)
        command("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        command("ip", "link", "set", outside, "master", bridge, "up")
        command("ip", "-n", namespace, "address", "add", f"{own}/24", "dev", "eth0")
        # An IPv6 address would be there only a second or two after the rest, and break off what is loading by then.
        command("ip", "-n", namespace, "link", "set", "eth0", "addrgenmode", "none")
        for device in ("lo", "eth0"):
            command("ip", "-n", namespace, "link", "set", device, "up")
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mfcd-")))
        wrapper = directory / "chromium"
        rule = f"MAP *.localhost:{running_site.port} {address}:8443"
        flags = (f"--host-resolver-rules={rule}", f"--ignore-certificate-errors-spki-list={signer(running_site)}")
        quoted = " ".join(shlex.quote(flag) for flag in flags)
        wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {namespace} {executable} {quoted} "$@"\n')
        wrapper.chmod(0o755)
        yield wrapper


def signer(site: CaddySite) -> str:
    """What Chromium knows a certificate's issuer by. It trusts what that one signed, as if it were installed."""
    issuer = site.authority.with_name("intermediate.crt")
    key = command("openssl", "x509", "-in", str(issuer), "-noout", "-pubkey")
    der = base64.b64decode("".join(line for line in key.splitlines() if not line.startswith("-----")))
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def command(*argv: str) -> str:
    return subprocess.run(argv, check=True, timeout=30, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield launched
        await launched.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A visitor with a fresh browser."""
    made = await browser.new_context(locale="en-GB", timezone_id="Europe/Berlin")
    made.set_default_timeout(15_000)
    yield made
    await made.close()


@pytest.fixture
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page that may neither write an error to its console nor be refused anything by its own policy."""
    made = await context.new_page()
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("console", lambda message: faults.append(message.text) if _is_fault(message.type, message.text) else None)
    yield made
    assert faults == []


def _is_fault(kind: str, text: str) -> bool:
    # Chromium itself notes every answer of 400 and above, which tests provoke.
    return kind in ("error", "warning") and not text.startswith("Failed to load resource: the server responded")
