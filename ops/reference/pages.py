"""Owns the list of generated pages."""

from __future__ import annotations

from collections.abc import Callable

from ops.reference import configuration, exitcodes, medforgectl, operator_rpc, routes, rpc

PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/configuration.md": configuration.page,
    "docs/reference/exit-codes.md": exitcodes.page,
    "docs/reference/http-routes.md": routes.page,
    "docs/reference/medforgectl.md": medforgectl.page,
    "docs/reference/operator-rpc.md": operator_rpc.page,
    "docs/reference/rpc.md": rpc.page,
}
