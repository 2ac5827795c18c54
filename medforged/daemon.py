"""Owns the daemon's process: command line, settings, logging, the socket, signals, and the order of start and end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog
import uvloop
from aiohttp import web

from medforged import __version__, logs
from medforged.adapters.systemd import Notifier, inherited_socket
from medforged.bootstrap import as_they_are, build, release
from medforged.config import DEFAULT_PATH, Metrics, Settings, load_settings, simulated
from medforged.configuration import ConfigurationError
from medforged.contract.exitcodes import ExitCode
from medforged.domain.errors import MedForgeError, StartupFailed
from medforged.exposition import exposing
from medforged.listening import BACKLOG, listen_on
from medforged.metrics.collection import DaemonMetrics
from medforged.ports.parts import Parts

__all__ = ["main", "serve"]

# Running creates and stops may take this long to end by themselves after SIGTERM; what is cut off is recovered.
_DRAIN_SECONDS = 8.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help=f"TOML file; {DEFAULT_PATH} where it exists.")
@click.option(
    "--simulate", type=click.Path(path_type=Path), help="Simulate the whole host, with state in this directory."
)
@click.option("--check", is_flag=True, help="Check the configuration and end.")
@click.option(
    "--release", "releasing", is_flag=True, help="Take the firewall rules and the network off this host, and end."
)
@click.version_option(__version__, prog_name="medforged")
def main(config: Path | None, simulate: Path | None, *, check: bool, releasing: bool) -> None:
    """The MedForge root daemon: GPUs, workspaces, isolation and containers behind a Unix socket."""
    if config is None and DEFAULT_PATH.exists() and simulate is None:
        config = DEFAULT_PATH
    try:
        settings = load_settings(config, os.environ)
        if simulate is not None:
            settings = simulated(settings, simulate.absolute())
        if check:
            click.echo("the configuration is valid")
            return
        logs.configure(settings.daemon.log_format)
        if releasing:
            uvloop.run(release(settings))
            return
        uvloop.run(serve(settings, is_simulated=simulate is not None))
    except ConfigurationError as error:
        _fail(str(error), ExitCode.CONFIG)
    except StartupFailed as error:
        _fail(str(error), error.exit_code)
    except MedForgeError as error:
        _fail(str(error), ExitCode.UNAVAILABLE)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str, code: int) -> None:
    click.echo(f"medforged: {message}", err=True)
    sys.exit(code)


async def serve(
    settings: Settings, *, is_simulated: bool = False, around: Callable[[Parts], Parts] = as_they_are
) -> None:
    """Run the daemon until SIGTERM or SIGINT; `around` as in `build`. Raises StartupFailed."""
    log = structlog.get_logger("medforged")
    if os.geteuid() != 0 and not is_simulated:
        raise StartupFailed("medforged must run as root; use --simulate to try it without", ExitCode.NO_PERMISSION)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notifier = Notifier(os.environ)
    # The socket comes first: whoever calls while the host is being looked at waits, and is not refused.
    inherited = _inherited()
    listener = inherited or listen_on(Path(settings.daemon.socket), settings.daemon.socket_group, "daemon.socket")
    async with contextlib.AsyncExitStack() as stack:
        if inherited is None:
            stack.callback(Path(settings.daemon.socket).unlink, missing_ok=True)
        stack.callback(listener.close)
        host = await build(settings, around=around)
        stack.push_async_callback(host.close)
        runner = web.AppRunner(host.server.application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        if settings.metrics.listen:
            await _expose(settings.metrics, host.metrics, stack)
        loops = host.start_loops(notifier.alive, notifier.watchdog_seconds)
        log.info("daemon.ready", version=__version__, socket=settings.daemon.socket, instance=settings.daemon.instance)
        notifier.ready()
        ended = await _until(stop, loops)
        log.info("daemon.stopping")
        notifier.stopping()
        host.server.stop_accepting()
        await host.server.drain(_DRAIN_SECONDS)
        await host.services.tasks.drain(_DRAIN_SECONDS)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if ended is not None:
            log.error("daemon.loop_failed", loop=ended.get_name(), exc_info=ended.exception())
            raise StartupFailed(
                f"internal error: {ended.get_name()} ended; the journal has the details", ExitCode.INTERNAL
            )
        log.info("daemon.stopped")


async def _expose(settings: Metrics, metrics: DaemonMetrics, stack: contextlib.AsyncExitStack) -> None:
    """Answer Prometheus until the stack is left."""
    path = Path(settings.listen)
    listener = listen_on(path, settings.socket_group, "metrics.listen")
    stack.callback(path.unlink, missing_ok=True)
    stack.callback(listener.close)
    await stack.enter_async_context(exposing(listener, metrics.read))


async def _until(stop: asyncio.Event, loops: list[asyncio.Task[None]]) -> asyncio.Task[None] | None:
    """Wait for the signal; return a loop that ended although it never should."""
    waiting = asyncio.ensure_future(stop.wait())
    await asyncio.wait([waiting, *loops], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if stop.is_set():
        return None
    return next(loop for loop in loops if loop.done())


def _inherited() -> socket.socket | None:
    try:
        return inherited_socket(os.environ)
    except ValueError as error:
        raise StartupFailed(f"cannot take over the socket: {error}; see medforged.socket", ExitCode.CONFIG) from error


if __name__ == "__main__":
    main()
