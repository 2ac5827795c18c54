"""Owns docs/reference/operator-rpc.md."""

from __future__ import annotations

from medforged.contract.operators import OPERATOR_METHODS
from ops.reference.markdown import anchor, document
from ops.reference.methods import overview, section, types

_INTRODUCTION = f"""
The facade answers operators on a Unix socket of their own, in the form of [the daemon's](rpc.md): `POST /v1/<method>`
with parameters as a JSON object, results and [errors](rpc.md#{anchor("Error codes")}) alike. `medforgectl users` is its
client.

```sh
curl --unix-socket /run/medforge/operators.sock -d '{{"is_admin": true}}' http://facade/v1/users.list
```

The kernel says who has connected: root and the group `operators.group` may call every method, the facade's own user
and anybody else none. What is changed here holds at once, and in other processes of the facade within a second.
"""


def page() -> str:
    """The page, whole."""
    return document(
        "# The facade's operator socket",
        _INTRODUCTION,
        "## Methods",
        overview(OPERATOR_METHODS),
        "An audited call is told to the log with the caller's user and process id, and without its parameters.",
        *(block for method in OPERATOR_METHODS for block in section(method)),
        "## Types",
        *types(OPERATOR_METHODS),
    )
