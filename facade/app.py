"""Owns the program `medforge-facade`: its command line, and its life from start to the last answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click
import structlog
import uvloop
from aiohttp import web

from facade.bootstrap import assemble
from facade.config import DEFAULT_PATH, Settings, load_settings, simulated
from facade.listening import BACKLOG, listen
from facade.notify import Notifier
from facade.privileges import check_privileges
from facade.server import Runner
from facade.startup import StartupFailed
from medforged import __version__, logs
from medforged.configuration import ConfigurationError
from medforged.contract.exitcodes import ExitCode

__all__ = ["main", "serve"]

_log = structlog.get_logger()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help=f"TOML file; {DEFAULT_PATH} where it exists.")
@click.option(
    "--simulate",
    type=click.Path(path_type=Path),
    help="Trial without proxy and TLS: listen on 127.0.0.1:8080, keep everything in this directory.",
)
@click.option("--check", is_flag=True, help="Check the configuration and end.")
@click.version_option(__version__, prog_name="medforge-facade")
def main(config: Path | None, simulate: Path | None, *, check: bool) -> None:
    """The web facade of MedForge: accounts, cookies and the public HTTP API."""
    if config is None and DEFAULT_PATH.exists() and simulate is None:
        config = DEFAULT_PATH
    # What the facade writes, its database above all, is for nobody else.
    os.umask(0o077)
    try:
        settings = load_settings(config, os.environ)
        if simulate is not None:
            settings = simulated(settings, simulate.absolute())
        if check:
            click.echo("the configuration is valid")
            return
        if not settings.process.allow_privileged:
            check_privileges(os.geteuid())
        logs.configure(settings.process.log_format)
        uvloop.run(serve(settings))
    except ConfigurationError as error:
        _fail(str(error), ExitCode.CONFIG)
    except StartupFailed as error:
        _fail(str(error), error.exit_code)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then answer whoever is connected. Raises StartupFailed.

    The socket comes first and is accepted from last, when sessions are known: who connects in between waits.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier(os.environ)
    listener = listen(settings.listen, os.environ)
    try:
        async with assemble(settings) as facade:
            runner = Runner(facade.app, facade.fast_path, drain_seconds=settings.listen.drain_seconds)
            await runner.setup()
            alive = asyncio.create_task(notifier.keep_alive())
            try:
                await web.SockSite(runner, listener.socket, backlog=BACKLOG).start()
                _log.info("facade.started", version=__version__, listens=listener.told)
                notifier.tell("READY=1")
                await stop.wait()
                _log.info("facade.stopping", reason="asked to")
                await runner.stop_accepting()
                # Heard as: who connects from now on waits for the next one.
                notifier.tell("STOPPING=1")
            finally:
                alive.cancel()
                await runner.cleanup()
    finally:
        listener.socket.close()
        listener.remove()
    _log.info("facade.stopped")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"medforge-facade: {message}", err=True)
    sys.exit(code)
