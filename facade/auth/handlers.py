"""Owns the endpoints of accounts and logins; translates only."""

from __future__ import annotations

from aiohttp import web

from facade.auth.accounts import AccountDisabled, Accounts, WrongCredentials
from facade.auth.attempts import Attempts
from facade.auth.cookies import Cookies
from facade.auth.logins import Logins
from facade.auth.passwords import Busy
from facade.envelope import success
from facade.keys import principal_of
from facade.metrics.tally import Attempt, Tally
from facade.problems import Problem, not_signed_in, unavailable
from facade.schemas.bodies import Empty, read_body
from facade.schemas.sessions import Message
from facade.schemas.users import ChangeMe, Credentials, Identity, checked_change, checked_credentials
from facade.store.logins import LoginEnded, NotAdmitted
from facade.store.users import EmailTaken, User

__all__ = ["AuthHandlers", "account_disabled", "busy", "email_taken", "wrong_credentials", "wrong_password"]


class AuthHandlers:
    """Sign up, in and out, and who one is."""

    def __init__(self, accounts: Accounts, attempts: Attempts, logins: Logins, cookies: Cookies, tally: Tally) -> None:
        self._accounts = accounts
        self._attempts = attempts
        self._logins = logins
        self._cookies = cookies
        self._tally = tally

    async def signup(self, request: web.Request) -> web.StreamResponse:
        email, password = checked_credentials(await read_body(request, Credentials))
        with self._tally.attempt(Attempt.SIGNUP):
            return await self._sign_up(request, email, password)

    async def _sign_up(self, request: web.Request, email: str, password: str) -> web.StreamResponse:
        self._attempts.sign_up(request)
        try:
            user = await self._accounts.sign_up(email, password)
        except EmailTaken as error:
            raise email_taken() from error
        except Busy as error:
            raise busy() from error
        return await self._signed_in(request, user, 201)

    async def login(self, request: web.Request) -> web.StreamResponse:
        credentials = await read_body(request, Credentials)
        with self._tally.attempt(Attempt.LOGIN):
            return await self._sign_in(request, credentials)

    async def _sign_in(self, request: web.Request, credentials: Credentials) -> web.StreamResponse:
        try:
            with self._attempts.sign_in(request, credentials.email) as guess:
                found = await self._accounts.find(credentials.email)
                user = await self._accounts.sign_in(found, credentials.password, known=guess.of(found))
        except WrongCredentials as error:
            raise wrong_credentials() from error
        except AccountDisabled as error:
            raise account_disabled() from error
        except Busy as error:
            raise busy() from error
        return await self._signed_in(request, user, 200)

    async def logout(self, request: web.Request) -> web.StreamResponse:
        await read_body(request, Empty)
        await self._logins.revoke(self._cookies.tokens(request))
        response = success(request, Message(message="Signed out."))
        self._cookies.clear(response)
        return response

    async def me(self, request: web.Request) -> web.StreamResponse:
        return success(request, Identity.of(principal_of(request)))

    async def change_me(self, request: web.Request) -> web.StreamResponse:
        wanted = await read_body(request, ChangeMe)
        email, password = checked_change(wanted)
        user_id = principal_of(request).user_id
        try:
            with self._attempts.confirm(request, user_id, moves=email is not None):
                user, token = await self._accounts.change(
                    user_id, self._cookies.tokens(request), wanted.current_password, email=email, password=password
                )
        except WrongCredentials as error:
            raise wrong_password() from error
        except EmailTaken as error:
            raise email_taken() from error
        except LoginEnded as error:
            raise not_signed_in() from error
        except Busy as error:
            raise busy() from error
        response = success(request, Identity.of(user))
        self._cookies.set(response, token)
        self._attempts.devices.remember(request, response, user)
        return response

    async def _signed_in(self, request: web.Request, user: User, status: int) -> web.StreamResponse:
        # The cookie that the browser had is overwritten; its login must not stay valid without anyone holding it.
        await self._logins.revoke(self._cookies.tokens(request))
        response = success(request, Identity.of(user), status=status)
        try:
            self._cookies.set(response, await self._logins.start(user))
        except NotAdmitted as error:
            # Changed while its password was being checked: what was right a moment ago is not any more.
            raise wrong_credentials() from error
        self._attempts.devices.remember(request, response, user)
        return response


def email_taken() -> Problem:
    return Problem(409, "Email is already registered.")


def wrong_credentials() -> Problem:
    return Problem(401, "Invalid email or password.")


def wrong_password() -> Problem:
    return Problem(403, "The current password is wrong.")


def account_disabled() -> Problem:
    """For who knows the password; anybody else is told that the credentials are wrong."""
    return Problem(403, "This account is disabled.")


def busy() -> Problem:
    return unavailable("Too many people are signing in at this moment; try again in a few seconds.", 2)
