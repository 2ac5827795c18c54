"""Owns `ops/up` and `ops/down`: the order in which the parts of a trial installation come and go.

Runs on the distribution's Python with the standard library alone. Everything that is started is noted in a ledger, so
that `down` ends exactly that, and a second `up` finds what is there.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import socket
import ssl
import sys
from pathlib import Path

import hostparts
import packages
import services
import simulation
from common import ROOT, Failure, fail, run, say, wait_for
from layout import Layout, layout_from_environment
from processes import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(prog="ops/up or ops/down", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument(
        "--simulate", action="store_true", help="simulate the whole host: needs neither root nor Docker"
    )
    parser.add_argument("--force", action="store_true", help="down: go on where sessions cannot be stopped")
    options = parser.parse_args()
    try:
        if options.simulate:
            simulation.up() if options.action == "up" else simulation.down()
            return
        hostparts.require_root()
        layout = layout_from_environment()
        with Path("/run/medforge-ops.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ledger = Ledger(layout.run / "ledger.json")
            up(layout, ledger) if options.action == "up" else down(layout, ledger, force=options.force)
    except Failure as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def up(layout: Layout, ledger: Ledger) -> None:
    hostparts.install_packages()
    hostparts.ensure_users()
    hostparts.ensure_directories(layout)
    _require_port(layout, ledger)
    hostparts.ensure_docker(ledger, layout.logs)
    # The images and the virtual environment do not need each other, and each keeps a core busy.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = pool.submit(_images, layout)
        environment = pool.submit(packages.virtualenv)
        zfs = hostparts.ensure_zfs(ledger, layout)
        pack, venv = images.result(), environment.result()
    services.ensure_daemon(layout, ledger, venv, pack, zfs=zfs)
    services.ensure_facade(layout, ledger, venv)
    services.ensure_caddy(layout, ledger)
    wait_for("the site's answer", lambda: _answers(layout), 30, f"see the logs in {layout.logs}")
    _link_command(layout, venv, ledger)
    ctl = f"{venv}/bin/medforgectl --socket {layout.daemon_socket}"
    print(
        f"MedForge is up.\n"
        f"  web   {layout.url('medforge')}/\n"
        f"  api   {layout.url('api.medforge')}/api/v1\n"
        f"  IDEs  {layout.url('s-<slug>.medforge')}/\n"
        f"  CA    {layout.caddy_state}/caddy/pki/authorities/local/root.crt (trust it once)\n"
        f"  ask   {ctl} status\n"
        f"  admin {ctl} users create you@example.org --admin --generate\n"
        f"  logs  {layout.logs}\n"
        f"  stop  ops/down"
    )


def down(layout: Layout, ledger: Ledger, *, force: bool) -> None:
    if not ledger.entries:
        say("nothing that ops/up started is running")
        return
    services.stop_all(layout, ledger, ROOT / ".venv", force=force)
    hostparts.release_host(ledger)
    for name in list(ledger.entries):
        ledger.forget(name)
    say("stopped; workspaces and databases are kept")


def _images(layout: Layout) -> str:
    """Build what is missing and return the pack's pinned reference."""
    say("building the images (the first time takes minutes)")
    references = run([ROOT / "ops" / "images", "all"], log=layout.logs / "images.log")
    for line in references.splitlines():
        if line.startswith("medforge-pack-default@sha256:"):
            return line.strip()
    raise Failure(f"ops/images named no pack; see {layout.logs / 'images.log'}")


def _require_port(layout: Layout, ledger: Ledger) -> None:
    """Fail before anything is started when somebody else has the port."""
    if "caddy" in ledger.entries:
        return
    address = "127.0.0.1" if layout.domain == "localhost" else "0.0.0.0"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, layout.https_port))
        except OSError as error:
            raise Failure(
                f"port {layout.https_port} is taken ({error.strerror}); free it, or set MEDFORGE_HTTPS_PORT to another"
            ) from error


def _answers(layout: Layout) -> bool:
    """Whether the health page answers through Caddy. Trust is not the question here: the CA may be minutes old."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # By address: a trial's domain need not resolve on this host.
    name = f"api.medforge.{layout.domain}"
    try:
        with (
            socket.create_connection(("127.0.0.1", layout.https_port), 2) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            tls.settimeout(5)
            tls.sendall(f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            return tls.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def _link_command(layout: Layout, venv: Path, ledger: Ledger) -> None:
    """Put medforgectl where operators look for it, unless something else is there."""
    link = Path("/usr/local/bin/medforgectl")
    if layout.instance == "medforge" and not link.exists() and not link.is_symlink():
        link.symlink_to(venv / "bin" / "medforgectl")
        ledger.note("command", path=str(link))


if __name__ == "__main__":
    main()
