"""Owns how often somebody may try to sign up, to sign in, or a password: what each attempt is charged to.

Strangers are charged by address and by account. A browser that has signed in to the account before is charged by its
device cookie, so that no stranger, of the same address or of another, keeps it out; only all such browsers of a network
together have a limit again, which it takes an account's right password to use up. Known and unknown accounts are
treated alike.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self
from uuid import UUID

import structlog
from aiohttp import web

from facade.auth import emails
from facade.auth.accounts import WrongCredentials
from facade.auth.addresses import Addresses
from facade.auth.devices import Device, Devices
from facade.limits.limits import Charge, LimitExceeded, Limits, Taken
from facade.limits.rules import Rule
from facade.problems import rate_limited
from facade.store.users import User

__all__ = ["Attempts", "Guess"]

_log = structlog.get_logger()

_FAILURES = (Rule.VISITOR_FAILURES, Rule.ACCOUNT_FAILURES, Rule.DEVICE_FAILURES, Rule.USER_FAILURES)


class Guess:
    """A password that is being checked, in a context that ends when it is known whether it was right.

    It is charged as a wrong one from its beginning, so that many at once gain nothing; only WrongCredentials leaves it
    so. What could not be checked at all costs nobody a failure.
    """

    def __init__(self, attempts: Attempts, request: web.Request, email: str = "", device: Device | None = None) -> None:
        self._attempts = attempts
        self._request = request
        self._email = email
        self._device = device
        self._taken: list[Taken] = []

    def charge(self, *charges: Charge) -> None:
        """Raises Problem 429."""
        self._taken.append(self._attempts.take(self._request, *charges))

    def of(self, user: User | None) -> bool:
        """Whether it comes from a device of this account, which is the one that the guess is about.

        A device that signed in with an earlier password is a stranger: it may be the reason for the change.
        Raises Problem 429.
        """
        if self._device is None:
            return False
        if user is None or not self._attempts.devices.is_current(self._device, user):
            self.charge(*self._attempts.of_stranger(self._request, self._email))
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, WrongCredentials):
            for taken in self._taken:
                taken.take_back(*_FAILURES)


class Attempts:
    """What handlers ask before they do anything that is limited. Each raises Problem 429 with Retry-After."""

    def __init__(self, limits: Limits, addresses: Addresses, devices: Devices) -> None:
        self._limits = limits
        self._addresses = addresses
        self.devices = devices

    def sign_up(self, request: web.Request) -> None:
        """A new account, or the question whether an address has one."""
        network = self._addresses.of(request).network
        self.take(request, *self._of_address(request), (Rule.NETWORK_SIGNUPS, network))

    def sign_in(self, request: web.Request, email: str) -> Guess:
        """A guess at the password of an account, which need not exist, in any spelling of its address."""
        email = _account(email)
        device = self.devices.recognize(request, email)
        guess = Guess(self, request, email, device)
        if device is None:
            guess.charge(*self.of_stranger(request, email))
        else:
            known = (Rule.KNOWN_ATTEMPTS, self._addresses.of(request).network)
            guess.charge((Rule.DEVICE_ATTEMPTS, device.id), (Rule.DEVICE_FAILURES, device.id), known)
        return guess

    def confirm(self, request: web.Request, user_id: UUID, *, moves: bool) -> Guess:
        """The current password, told by somebody who is signed in already.

        `moves`: for another e-mail address, which asks whether that has an account, as signing up does.
        """
        network = self._addresses.of(request).network
        guess = Guess(self, request)
        guess.charge(
            (Rule.USER_ATTEMPTS, user_id.bytes),
            (Rule.USER_FAILURES, user_id.bytes),
            (Rule.KNOWN_ATTEMPTS, network),
            *([(Rule.NETWORK_SIGNUPS, network)] if moves else []),
        )
        return guess

    def make_token(self, request: web.Request, user_id: UUID) -> None:
        """A new API token."""
        self.take(request, (Rule.USER_TOKENS, user_id.bytes))

    def of_stranger(self, request: web.Request, email: str) -> tuple[Charge, ...]:
        """What a guess of somebody costs who is not known to the account."""
        account = email.encode("utf-8", "surrogatepass")
        visitor = self._addresses.of(request).network + b"\0" + account
        return *self._of_address(request), (Rule.VISITOR_FAILURES, visitor), (Rule.ACCOUNT_FAILURES, account)

    def take(self, request: web.Request, *charges: Charge) -> Taken:
        """Charge all or none. Raises Problem 429."""
        try:
            return self._limits.take(*charges)
        except LimitExceeded as error:
            _log.info(
                "limits.refused",
                limit=error.rule.name.lower(),
                address=str(self._addresses.of(request)),
                seconds=error.seconds,
            )
            raise rate_limited(error.seconds) from error

    def _of_address(self, request: web.Request) -> tuple[Charge, ...]:
        address = self._addresses.of(request)
        return (Rule.NETWORK_ATTEMPTS, address.network), (Rule.ADDRESS_ATTEMPTS, address.key)


def _account(email: str) -> str:
    """The account's one name; what is no address has no account, and is counted as it is written."""
    try:
        return emails.normalize(email)
    except emails.InvalidEmail:
        return email
