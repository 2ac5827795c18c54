"""Reads table.txt, and says in full what each of its cells means.

The table and this legend are written by hand: nothing of them comes from the product, whose answers they judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

TABLE = Path(__file__).with_name("table.txt")
PROBLEMS = "https://medforge.dev/problems/"

_BROWSERS = ("anonymous", "user", "other", "admin", "expired", "revoked")
_SCRIPTS = ("token", "scopeless", "stale", "dead", "keyed", "demoted")
CALLERS = (*_BROWSERS, *_SCRIPTS)
COLUMNS = [
    "good",
    "absent",
    "badid",
    "limit",
    "cursor",
    "filter",
    "param",
    "json",
    "large",
    "media",
    "coding",
    "type",
    "unknown",
    "method",
    "origin",
    "tenant",
    "site",
    "host",
]

# On every answer, and nothing else is on any unless it is said.
BARE = frozenset({"Content-Length", "Date", "Server", "X-Request-ID"})
# On every answer that a browser can get to see: all but those that name an upstream, which Caddy keeps to itself.
STRICT = frozenset(
    {
        "Cache-Control",
        "Content-Security-Policy",
        "Cross-Origin-Opener-Policy",
        "Cross-Origin-Resource-Policy",
        "Permissions-Policy",
        "Referrer-Policy",
        "X-Content-Type-Options",
    }
)


@dataclass(frozen=True)
class Refusal:
    """A problem: its status, type, code, detail, the headers that it adds, and the kinds that `errors` may have."""

    status: int
    type: str
    code: str
    title: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()


def _plain(status: int, title: str, detail: str, **headers: str) -> Refusal:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refusal(status, f"{PROBLEMS}http/{status}", str(status), title, detail, named)


def _invalid(*kinds: str) -> Refusal:
    return Refusal(
        422,
        f"{PROBLEMS}validation/request",
        "request_validation_failed",
        "Request Validation Failed",
        "Request validation failed.",
        kinds=kinds,
    )


def _without(scope: str) -> Refusal:
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    return _plain(403, "Forbidden", f"The API token lacks the scope {scope}.", WWW_Authenticate=challenge)


_CHALLENGE = 'Bearer realm="medforge"'

LEGEND = {
    "400l": Refusal(
        400,
        f"{PROBLEMS}pagination/invalid-limit",
        "invalid_limit",
        "Invalid Limit",
        "The limit must be a whole number from 1 to 500.",
    ),
    "400c": Refusal(
        400,
        f"{PROBLEMS}pagination/invalid-cursor",
        "invalid_cursor",
        "Invalid Cursor",
        "The cursor is not one that this listing has given out.",
    ),
    "401": _plain(401, "Unauthorized", "Authentication required.", WWW_Authenticate=_CHALLENGE),
    "401t": _plain(401, "Unauthorized", "The API token is not valid.", WWW_Authenticate='Bearer error="invalid_token"'),
    "403n": _plain(
        403, "Forbidden", "API tokens cannot be used here.", WWW_Authenticate='Bearer error="insufficient_scope"'
    ),
    "403ar": _without("account:read"),
    "403sr": _without("sessions:read"),
    "403sw": _without("sessions:write"),
    "403dr": _without("admin:read"),
    "403dw": _without("admin:write"),
    "403o": _plain(403, "Forbidden", "Request origin is not allowed."),
    "403d": _plain(403, "Forbidden", "Session access denied."),
    "403a": Refusal(
        403,
        f"{PROBLEMS}competitions/admin-access-denied",
        "admin_access_denied",
        "Admin Access Denied",
        "Admin access required.",
    ),
    "404": _plain(404, "Not Found", "Resource not found."),
    "404s": _plain(404, "Not Found", "Session not found."),
    "404t": _plain(404, "Not Found", "API token not found."),
    "404u": _plain(404, "Not Found", "User not found."),
    "404p": _plain(404, "Not Found", "Pack not found."),
    "405": _plain(405, "Method Not Allowed", "This method is not allowed here."),
    # The title is RFC 9110's name of the status, whatever name the runtime's library gives it.
    "413": _plain(413, "Content Too Large", "The request body is too large."),
    "415m": _plain(
        415, "Unsupported Media Type", "Request bodies must be application/json.", Accept="application/json"
    ),
    "415c": _plain(415, "Unsupported Media Type", "Request bodies must not be compressed.", Accept_Encoding="identity"),
    "422j": _invalid("json_invalid"),
    "422p": _invalid("uuid_parsing"),
    "422q": _invalid("value_error"),
    "422t": _invalid("type_error", "value_error"),
    "422u": _invalid("extra_forbidden"),
    "422x": _invalid("extra_forbidden"),
}


@dataclass(frozen=True)
class Expected:
    """What the table says of one route: the methods that its path knows, and a cell by caller and column."""

    allow: str
    headers: frozenset[str]
    cells: dict[tuple[str, str], str]


def read(text: str) -> dict[tuple[str, str], Expected]:
    """By verb and path. Raises ValueError for a table that has holes or says a thing twice."""
    found: dict[tuple[str, str], Expected] = {}
    for block in _blocks(text):
        verb, path, *notes = block[0].split()
        told = dict(zip(notes[::2], notes[1::2], strict=True))
        if block[1].replace("|", " ").split() != COLUMNS:
            raise ValueError(f"{verb} {path}: the columns are others")
        cells: dict[tuple[str, str], str] = {}
        told_callers: list[str] = []
        for line in block[2:]:
            names, *row = line.replace("|", " ").split()
            for caller in CALLERS if names == "everybody" else names.split(","):
                cells |= {(caller, column): cell for column, cell in zip(COLUMNS, row, strict=True)}
                told_callers.append(caller)
        if sorted(told_callers) != sorted(CALLERS):
            raise ValueError(f"{verb} {path}: not every caller once")
        if unknown := {cell for cell in cells.values() if cell not in LEGEND and cell != "-" and not cell.isdigit()}:
            raise ValueError(f"{verb} {path}: {unknown} have no meaning")
        if (verb, path) in found:
            raise ValueError(f"{verb} {path} is told twice")
        headers = frozenset(filter(None, told.get("headers", "").split(",")))
        found[verb, path] = Expected(told["allow"], headers, cells)
    return found


def _blocks(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]
