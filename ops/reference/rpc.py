"""Owns docs/reference/rpc.md."""

from __future__ import annotations

import msgspec

from medforged.contract import watch
from medforged.contract.errors import HTTP_STATUS, ErrorBody, ErrorCode
from medforged.contract.methods import CORRELATION_HEADER, METHODS, WATCH_ACCESS, WATCH_PATH, Access
from ops.reference.markdown import code, document, table
from ops.reference.methods import overview, section, struct, types
from ops.reference.source import attribute_docs

_EVENTS: tuple[type[msgspec.Struct], ...] = (watch.SessionChanged, watch.Synced, watch.Heartbeat)

_INTRODUCTION = f"""
The daemon answers HTTP/1.1 on its Unix socket. A method is called by `POST /v1/<method>` with its parameters as a JSON
object (`{{}}` where it takes none) and answers 200 with its result as a JSON object. Every other answer has the form of
[ErrorBody](#errorbody). Unknown parameters are refused; unknown fields of results are to be ignored.

```sh
curl --unix-socket /run/medforge/medforged.sock -d '{{"limit": 10}}' http://medforged/v1/sessions.list
```

A caller may send `{CORRELATION_HEADER}` (up to 128 letters, digits, `.`, `_`, `-`); everything that the daemon writes
to its journal about the call carries it. Times are RFC 3339 in UTC.
"""


def page() -> str:
    """The page, whole."""
    levels, codes = attribute_docs(Access), attribute_docs(ErrorCode)
    return document(
        "# The daemon's socket",
        _INTRODUCTION,
        "## Who may call",
        "The kernel says who has connected; nothing that a caller sends changes it. Each level includes the ones "
        "above it in this list.",
        table(["level", "who"], [[level.name.lower(), levels[level.name]] for level in Access if level]),
        "## Methods",
        overview(METHODS),
        "An audited call is told to the journal with the caller's user and process id.",
        *(block for method in METHODS for block in section(method)),
        "## The watch stream",
        f"`GET {WATCH_PATH}` may be read at level {WATCH_ACCESS.name.lower()}.",
        (watch.__doc__ or "")
        .partition("\n\n")[2]
        .replace("`HEARTBEAT_SECONDS`", f"{watch.HEARTBEAT_SECONDS:g} seconds"),
        *(block for event in _EVENTS for block in struct(event)),
        "## Error codes",
        table(
            ["code", "HTTP status", "meaning"],
            [[code(c.value), str(HTTP_STATUS[c]), codes.get(c.name, "")] for c in ErrorCode],
        ),
        *struct(ErrorBody),
        "## Types",
        *types(METHODS, (*_EVENTS, ErrorBody)),
    )
