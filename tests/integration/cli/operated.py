"""A real facade behind an operator socket, in a thread of its own: the program under test is another process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from facade.auth.passwords import Passwords
from facade.bootstrap import Facade, assemble
from facade.config import Daemon, Database, Listen, Operators, Settings, Site
from facade.listening import Passed, listen_to_operators
from facade.operators.server import serving_operators

WAIT_SECONDS = 60.0


class OperatedFacade:
    """`folder` has its database and, under `operators.sock`, its socket; the daemon is the one of that folder."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "operators.sock"
        self._settings = Settings(
            site=Site(domain="example.test", web_root=""),
            listen=Listen(operator_socket=str(self.socket)),
            operators=Operators(own_user=True),
            database=Database(url=f"sqlite+aiosqlite:///{folder / 'facade.db'}"),
            daemon=Daemon(socket=str(folder / "medforged.sock")),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="operated-facade")
        self._stop = asyncio.Event()
        self._ended: Future[None] | None = None
        self.facade: Facade

    def start(self) -> None:
        self._thread.start()
        ready: Future[Facade] = Future()
        self._ended = asyncio.run_coroutine_threadsafe(self._serve(ready), self._loop)
        self.facade = ready.result(WAIT_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        if self._ended is not None:
            self._ended.result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do this where the facade lives."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    def add(self, email: str, password: str = "correct horse", *, is_admin: bool = False) -> str:
        """An account that is signed in; returns the login's token."""

        async def made() -> str:
            parts = self.facade
            user = await parts.administration.create(email, password, is_admin=is_admin, max_concurrent_sessions=1)
            return await parts.logins.start(user)

        token: str = self.run(made())
        return token

    def signed_in(self, token: str) -> bool:
        return self.run(self.facade.logins.identify([token])) is not None

    async def _serve(self, ready: Future[Facade]) -> None:
        try:
            listener = listen_to_operators(self._settings.listen, self._settings.operators, Passed())
            assert listener is not None
            cheap = Passwords(time_cost=1, memory_kib=8, parallelism=1)
            async with (
                assemble(self._settings, passwords=cheap) as facade,
                serving_operators(facade.operators, listener.socket, 1),
            ):
                ready.set_result(facade)
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise
