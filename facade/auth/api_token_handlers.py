"""Owns the endpoints of a user's API tokens; translates only. No API token reaches them: a token makes no tokens."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from facade.auth.api_tokens import ApiTokens
from facade.auth.attempts import Attempts
from facade.auth.cookies import Cookies
from facade.auth.principals import Scope
from facade.envelope import success
from facade.keys import principal_of
from facade.problems import Problem, admins_only, not_found, not_signed_in
from facade.schemas.api_tokens import ApiTokenView, CreateApiToken, NewApiToken, checked_api_token
from facade.schemas.bodies import Empty, read_body
from facade.schemas.paths import read_id
from facade.schemas.sessions import Message
from facade.store.api_tokens import MAX_TOKENS, TooManyTokens
from facade.store.logins import LoginEnded

__all__ = ["ApiTokenHandlers", "api_token_not_found", "too_many_api_tokens"]

_FOR_ADMINS = frozenset({Scope.ADMIN_READ, Scope.ADMIN_WRITE})


class ApiTokenHandlers:
    """List, make and revoke one's API tokens."""

    def __init__(self, tokens: ApiTokens, attempts: Attempts, cookies: Cookies) -> None:
        self._tokens = tokens
        self._attempts = attempts
        self._cookies = cookies

    async def list(self, request: web.Request) -> web.StreamResponse:
        found = await self._tokens.of_user(principal_of(request).user_id)
        return success(request, [ApiTokenView.of(token) for token in found])

    async def create(self, request: web.Request) -> web.StreamResponse:
        wanted = checked_api_token(await read_body(request, CreateApiToken))
        principal = principal_of(request)
        if not principal.is_admin and not _FOR_ADMINS.isdisjoint(wanted.scopes):
            # It would be good for nothing now, and for everything on the day that its user becomes an admin.
            raise admins_only()
        self._attempts.make_token(request, principal.user_id)
        try:
            text, token = await self._tokens.create(
                principal.user_id,
                self._cookies.tokens(request),
                wanted.name,
                wanted.scopes,
                timedelta(days=wanted.expires_in_days),
            )
        except LoginEnded as error:
            raise not_signed_in() from error
        except TooManyTokens as error:
            raise too_many_api_tokens() from error
        return success(request, NewApiToken(token=text, api_token=ApiTokenView.of(token)), status=201)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        token_id = read_id(request)
        await read_body(request, Empty)
        if not await self._tokens.revoke(principal_of(request).user_id, token_id):
            raise api_token_not_found()
        return success(request, Message(message="API token revoked."))


def api_token_not_found() -> Problem:
    """Another's token is answered like none."""
    return not_found("API token not found.")


def too_many_api_tokens() -> Problem:
    return Problem(409, f"There are {MAX_TOKENS} API tokens already; revoke one first.")
