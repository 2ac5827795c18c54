"""Owns device cookies: what a browser keeps of having signed in to an account, so that strangers cannot lock it out.

Described by OWASP as "slow down online guessing attacks with device cookies". Wrong passwords of strangers are counted
for the account, those of a browser that has signed in to it before for that browser alone. The cookie is no login and
opens nothing. It holds a token for each of the last accounts of this browser: an id, the time, a mark of the password
that was right at that time, and a MAC over these and the account's address, by a key that the facade's database keeps.
So it cannot be made, moved to another account, or used after the password has changed.

`__Host-` makes browsers keep it for the very host that has set it: session hosts neither see nor set it.
"""

from __future__ import annotations

import hmac
import re
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import web

from facade.clock import Clock
from facade.store.users import User

__all__ = ["KEY_BYTES", "Device", "Devices"]

KEY_BYTES = 32
# Accounts that one browser is remembered for; it may be shared.
_ACCOUNTS = 4
# Looked at in one request: some of each cookie, so that none hides the others, and not for longer than a millisecond.
_MAX_TOKENS = 128
_FIELDS = struct.Struct(">16sI12s")
_MAC_BYTES = 16
# 48 bytes in base64url.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{64}")


@dataclass(frozen=True, slots=True)
class Device:
    """A browser that has signed in to an account. `password` is the mark of the password that was right then."""

    id: bytes
    password: bytes


class Devices:
    """Recognizes and remembers browsers. Accounts are named by their normalized e-mail address."""

    def __init__(self, key: bytes, clock: Clock, *, secure: bool, ttl: timedelta) -> None:
        self._key = key
        self._clock = clock
        self._secure = secure
        self._ttl = ttl
        # Browsers take the prefix with Secure only.
        self.cookie_name = "__Host-medforge_device" if secure else "medforge_device"
        self._value = re.compile(rf"(?:^|;)[ \t]*{self.cookie_name}=([A-Za-z0-9_.-]*)(?=[ \t]*(?:;|$))")

    def recognize(self, request: web.BaseRequest, email: str) -> Device | None:
        """The device that this account was signed in to from, if the request comes from one."""
        for token in self._tokens(request):
            if (device := self._verified(token, email)) is not None:
                return device
        return None

    def is_current(self, device: Device, user: User) -> bool:
        """Whether the account's password is still the one that was right on this device."""
        return hmac.compare_digest(device.password, self._mark(user))

    def remember(self, request: web.BaseRequest, response: web.StreamResponse, user: User) -> None:
        """Have the browser know from now on that it has signed in to this account."""
        tokens = self._tokens(request)
        known = [(token, device) for token in tokens if (device := self._verified(token, user.email)) is not None]
        # A device keeps its id, and so what is counted for it, for as long as the password stays.
        current = next((device.id for _, device in known if self.is_current(device, user)), None)
        fields = _FIELDS.pack(
            current or secrets.token_bytes(16), int(self._clock.now().timestamp()) % 2**32, self._mark(user)
        )
        made = urlsafe_b64encode(fields + self._mac(fields, user.email)).decode("ascii")
        others = [token for token in tokens if token not in [token for token, _ in known]]
        response.set_cookie(
            self.cookie_name,
            ".".join([made, *others[: _ACCOUNTS - 1]]),
            max_age=int(self._ttl.total_seconds()),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Strict",
        )

    def _tokens(self, request: web.BaseRequest) -> list[str]:
        """Every well-formed token of the request, in its order."""
        values = [value for header in request.headers.getall("Cookie", ()) for value in self._value.findall(header)]
        tokens = [token for value in values for token in value.split(".")[:_ACCOUNTS]]
        return list(dict.fromkeys(filter(_TOKEN.fullmatch, tokens)))[:_MAX_TOKENS]

    def _verified(self, token: str, email: str) -> Device | None:
        raw = urlsafe_b64decode(token)
        fields, mac = raw[: _FIELDS.size], raw[_FIELDS.size :]
        if not hmac.compare_digest(mac, self._mac(fields, email)):
            return None
        id_, issued, password = _FIELDS.unpack(fields)
        if self._clock.now().timestamp() - issued >= self._ttl.total_seconds():
            return None
        return Device(id_, password)

    def _mac(self, fields: bytes, email: str) -> bytes:
        return self._hash(b"device", fields + email.encode("utf-8", "surrogatepass"))[:_MAC_BYTES]

    def _mark(self, user: User) -> bytes:
        """Changes whenever the password does; another account with the same address has another."""
        return self._hash(b"password", user.id.bytes + user.password_revision.to_bytes(8))[:12]

    def _hash(self, purpose: bytes, data: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + data, "sha256")
