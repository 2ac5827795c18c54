"""Owns the program `medforge-facade`: its command line, alone or with workers, and its life to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import structlog
import uvloop
from aiohttp import web

from facade.bootstrap import assemble, prepare
from facade.config import DEFAULT_PATH, Settings, load_settings, simulated
from facade.descriptors import allow_many
from facade.limits.rules import Rule
from facade.limits.table import SharedTable
from facade.listening import BACKLOG, Listener, listen, listen_to_operators, take_passed
from facade.maintenance import COMMANDS
from facade.metrics.workers import Exposure
from facade.notify import Notifier
from facade.operators.server import serving_operators
from facade.privileges import check_privileges
from facade.server import Runner
from facade.startup import StartupFailed
from facade.store.engine import Store
from facade.workers.supervisor import BEAT_SECONDS, Supervisor
from medforged import __version__, logs
from medforged.configuration import ConfigurationError
from medforged.contract.exitcodes import ExitCode

__all__ = ["Listeners", "Worker", "main", "run", "serve"]

_log = structlog.get_logger()

# What a worker's end may take beyond the requests in progress: closing the database, writing what was used.
_CLOSING_SECONDS = 10.0


class _Program(click.Group):
    """What makes a start or a command impossible ends the program with one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            _fail(str(error), ExitCode.CONFIG)
        except StartupFailed as error:
            _fail(str(error), error.exit_code)


@click.group(
    cls=_Program,
    commands=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--config", type=click.Path(path_type=Path), help=f"TOML file; {DEFAULT_PATH} where it exists.")
@click.option(
    "--simulate",
    type=click.Path(path_type=Path),
    help="Trial without proxy and TLS: listen on 127.0.0.1:8080, keep everything in this directory.",
)
@click.option("--check", is_flag=True, help="Check the configuration and end.")
@click.version_option(__version__, prog_name="medforge-facade")
@click.pass_context
def main(context: click.Context, config: Path | None, simulate: Path | None, *, check: bool) -> None:
    """The web facade of MedForge: accounts, cookies and the public HTTP API. Without a command it serves."""
    # What the facade writes, its database above all, is for nobody else.
    os.umask(0o077)
    if context.invoked_subcommand is not None:
        # A command reads the settings when it needs them: its help and its mistakes come first.
        context.obj = lambda: _settings(config, simulate)
    elif check:
        Store.of(_load(config, simulate).database)
        click.echo("the configuration is valid")
    else:
        settings = _settings(config, simulate)
        allow_many()
        sys.exit(run(settings))


def _load(config: Path | None, simulate: Path | None) -> Settings:
    """The settings that these options name. Raises ConfigurationError."""
    if config is None and DEFAULT_PATH.exists() and simulate is None:
        config = DEFAULT_PATH
    settings = load_settings(config, os.environ)
    return settings if simulate is None else simulated(settings, simulate.absolute())


def _settings(config: Path | None, simulate: Path | None) -> Settings:
    """The settings, for a process that may act by them. Raises ConfigurationError, StartupFailed."""
    settings = _load(config, simulate)
    if not settings.process.allow_privileged:
        check_privileges(os.geteuid())
    logs.configure(settings.process.log_format, program="medforge-facade")
    return settings


def run(settings: Settings) -> int:
    """Serve until asked to stop, alone or with workers. Returns the exit code. Raises StartupFailed.

    The sockets come first and are accepted from last, when sessions are known: who connects in between waits.
    """
    notifier = Notifier.to_systemd(os.environ)
    with contextlib.ExitStack() as stack:
        listeners = _open(settings, stack)
        if settings.process.workers == 1:
            uvloop.run(serve(settings, listeners, notifier))
            return ExitCode.OK
        # One table for all: an attempt counts whoever serves it.
        counters = SharedTable.create(len(Rule))
        beat_seconds = min(BEAT_SECONDS, notifier.interval_seconds or BEAT_SECONDS)

        def work(number: int, channel: socket.socket) -> int:
            logs.configure(settings.process.log_format, program="medforge-facade", worker=number)
            worker = Worker(number, channel, counters)
            reports = Notifier.to_supervisor(channel, beat_seconds)
            return _exit_code(lambda: uvloop.run(serve(settings, listeners, reports, worker)))

        return Supervisor(
            settings.process.workers,
            lambda: _exit_code(lambda: uvloop.run(prepare(settings))),
            work,
            notifier,
            stop_seconds=settings.listen.drain_seconds + _CLOSING_SECONDS,
            beat_seconds=beat_seconds,
        ).run()


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where requests come in, and where there are such: operators' calls, and what asks for metrics."""

    public: Listener
    operators: Listener | None
    exposure: Exposure | None


def _open(settings: Settings, stack: contextlib.ExitStack) -> Listeners:
    """All of them; the stack closes what was opened. Raises StartupFailed."""
    passed = take_passed(os.environ)
    public = listen(settings.listen, passed)
    stack.callback(public.close)
    operators = listen_to_operators(settings.listen, settings.operators, passed)
    if operators is not None:
        stack.callback(operators.close)
    exposure = Exposure.open(settings.metrics, settings.process.workers)
    if exposure is not None:
        stack.callback(exposure.close)
    return Listeners(public, operators, exposure)


@dataclass(frozen=True, slots=True)
class Worker:
    """Which one of several this process is, the channel that ends with its supervisor, and what all of them share."""

    number: int
    channel: socket.socket
    counters: SharedTable


async def serve(settings: Settings, listeners: Listeners, notifier: Notifier, worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then answer whoever is connected. Raises StartupFailed."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if worker is not None:
        channel = worker.channel

        def end() -> None:
            # A supervisor says nothing: what there is to read is its end.
            loop.remove_reader(channel)
            stop.set()

        loop.add_reader(channel, end)
    alive = asyncio.create_task(notifier.keep_alive())
    try:
        async with assemble(
            settings,
            counters=worker.counters if worker is not None else None,
            prepared=worker is not None,
            chores=worker is None or worker.number == 1,
        ) as facade:
            runner = Runner(facade.app, facade.fast_path, drain_seconds=settings.listen.drain_seconds)
            await runner.setup()
            beside = contextlib.AsyncExitStack()
            try:
                if (exposure := listeners.exposure) is not None:
                    ours = worker.number if worker is not None else 1
                    await beside.enter_async_context(exposure.serving(ours, facade.metrics.read))
                    _log.info("metrics.exposed", listens=exposure.told)
                if (operators := listeners.operators) is not None:
                    serving = serving_operators(facade.operators, operators.socket, settings.listen.drain_seconds)
                    await beside.enter_async_context(serving)
                    _log.info("operators.served", listens=operators.told)
                await web.SockSite(runner, listeners.public.socket, backlog=BACKLOG).start()
                _log.info("facade.started", version=__version__, listens=listeners.public.told)
                notifier.tell("READY=1")
                await stop.wait()
                _log.info("facade.stopping", reason="asked to")
                await runner.stop_accepting()
                # Heard as: who connects from now on waits for the next one.
                notifier.tell("STOPPING=1")
            finally:
                await beside.aclose()
                await runner.cleanup()
    finally:
        alive.cancel()
    _log.info("facade.stopped")


def _exit_code(program: Callable[[], object]) -> int:
    """Run it as a process of its own; the exit code that it ends with."""
    try:
        program()
    except StartupFailed as error:
        _say(str(error))
        return error.exit_code
    return ExitCode.OK


def _say(message: str) -> None:
    click.echo(f"medforge-facade: {message}", err=True)


def _fail(message: str, code: int) -> NoReturn:
    _say(message)
    sys.exit(code)
