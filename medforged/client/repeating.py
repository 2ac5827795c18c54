"""Owns which calls may be made again when nobody knows how far the first one got."""

from __future__ import annotations

from typing import Any

from medforged.contract.methods import METHODS, Method, sessions_stop
from medforged.contract.operators import OPERATOR_METHODS

__all__ = ["REPEATABLE", "may_repeat"]

# What is not audited changes nothing. To be asked twice to stop a session is the same as once.
REPEATABLE: frozenset[str] = frozenset(
    {method.name for method in (*METHODS, *OPERATOR_METHODS) if not method.audited} | {sessions_stop.name}
)


def may_repeat(method: Method[Any, Any]) -> bool:
    """Whether making the call twice is the same as making it once."""
    return method.name in REPEATABLE
