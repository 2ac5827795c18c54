"""Owns the connection to the engine: the version both sides speak, the clients, and their threads and timeouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import DockerException

from medforged.adapters.docker.answers import whole
from medforged.adapters.docker.calls import BlockingCalls, CallsClosed
from medforged.adapters.docker.failures import translated
from medforged.domain.errors import ContainerError, ContainerUnavailable

__all__ = ["Connection", "Engine", "api_version"]

T = TypeVar("T")

# Docker 20.10 is the oldest engine with private cgroup namespaces; 1.44 (Docker 25) the newest API that this adapter
# was written for. A newer engine is asked to answer in the older form, as long as it can.
_OLDEST, _NEWEST = (1, 41), (1, 44)
# Stopping waits for a container to end, and must not take the threads of everybody else.
_WAITING_THREADS = 64
_SLACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Connection:
    """One engine as it was met, and a client to talk to it.

    `has_cdi`: it can pass devices by their CDI names. `maps_users`: user ids in containers are not those of the host.
    """

    client: Any
    version: str
    api_version: str
    has_cdi: bool
    maps_users: bool


class Engine:
    """Runs calls to the engine on threads of its own and translates whatever goes wrong.

    Seconds. `question_seconds` bounds questions, `action_seconds` everything that writes to disk or starts processes.
    The connection is made by the first call, and made again after every failure: the engine may have been restarted
    with another version or configuration.
    """

    def __init__(self, socket: Path, *, threads: int, question_seconds: float, action_seconds: float) -> None:
        self.socket = socket
        self.question_seconds = question_seconds
        self._action_seconds = action_seconds
        self._max_connections = threads + _WAITING_THREADS
        self._calls = BlockingCalls("docker", threads=threads, waiting_threads=_WAITING_THREADS)
        self._connections: tuple[Connection, Connection] | None = None  # for questions, for actions

    @property
    def connection(self) -> Connection | None:
        """The engine as it was last met; None before that and after a failure."""
        return self._connections[0] if self._connections else None

    async def ask(self, action: str, lane: str, work: Callable[[Connection], T]) -> T:
        """Run a question; `action` completes "cannot …" in messages. Raises ContainerError and its kin."""
        return await self._run(action, f"ask {lane}", self.question_seconds, lambda: work(self._connected()[0]))

    async def act(self, action: str, lane: str, work: Callable[[Connection], T], *, wait_seconds: float = 0) -> T:
        """The same for something that changes the host; the engine may take `wait_seconds` longer to answer.
        Actions in the same lane run one after the other."""
        limit = self._action_seconds + math.ceil(wait_seconds)
        return await self._run(action, f"act {lane}", limit, lambda: work(self._connected()[1]), waits=wait_seconds > 0)

    async def close(self) -> None:
        """Refuse new calls, and close the connections."""
        await self._calls.close(_SLACK_SECONDS)
        for connection in self._connections or ():
            connection.client.close()

    async def _run(self, action: str, lane: str, seconds: float, work: Callable[[], T], *, waits: bool = False) -> T:
        def call() -> T:
            try:
                return work()
            except (DockerException, requests.exceptions.RequestException) as error:
                self._connections = None
                raise translated(action, error, self.socket) from error

        try:
            # The client has the same limit between two bytes: the thread comes back about when the caller does.
            return await self._calls.run(lane, call, timeout_seconds=seconds + _SLACK_SECONDS, waits=waits)
        except TimeoutError as error:
            raise ContainerUnavailable(
                f"cannot {action}: the container engine did not answer within {seconds:g} s; "
                "see `systemctl status docker`"
            ) from error
        except CallsClosed as error:
            raise ContainerUnavailable(f"cannot {action}: the container adapter has been closed") from error

    def _connected(self) -> tuple[Connection, Connection]:
        # Without a lock: two threads that find no connection both make one, which is better than one waiting for
        # the other at an engine that does not answer.
        if self._connections is None:
            self._connections = self._connect()
        return self._connections

    def _connect(self) -> tuple[Connection, Connection]:
        first = self._client(".".join(map(str, _OLDEST)), self.question_seconds)
        try:
            said = whole(first.version(api_version=False), "its version")
        finally:
            first.close()
        chosen = api_version(str(said.get("ApiVersion")), str(said.get("MinAPIVersion")))
        client = self._client(chosen, self.question_seconds)
        info = whole(client.info(), "itself")
        asking = Connection(
            client=client,
            version=str(said.get("Version")),
            api_version=chosen,
            has_cdi=bool(info.get("CDISpecDirs")),
            maps_users=any(str(option).startswith("name=userns") for option in info.get("SecurityOptions") or ()),
        )
        return asking, replace(asking, client=self._client(chosen, self._action_seconds))

    def _client(self, version: str, timeout: float) -> Any:
        client = docker.APIClient(
            base_url=f"unix://{self.socket}", version=version, timeout=timeout, max_pool_size=self._max_connections
        )
        # The environment's proxies and ~/.netrc have nothing to do with a local socket, and are read at every call.
        client.trust_env = False
        return client


def api_version(newest: str, oldest: str) -> str:
    """The API version to speak with an engine that offers these. Raises ContainerError.

    >>> api_version("1.41", "1.12"), api_version("1.52", "1.44"), api_version("1.60", "1.48")
    ('1.41', '1.44', '1.48')
    """
    try:
        most, least = _numbers(newest), _numbers(oldest)
    except ValueError as error:
        raise ContainerError(
            f"cannot use the container engine: it says that its API is {oldest!r} to {newest!r}; is it Docker?"
        ) from error
    if most < _OLDEST:
        raise ContainerError(
            f"cannot use the container engine: its API {newest} is too old; install Docker 20.10 or newer"
        )
    return ".".join(map(str, max(min(most, _NEWEST), least)))


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)
