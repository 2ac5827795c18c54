"""Owns the headers that every answer has and that keep browsers strict: what no page of ours needs is not allowed.

Strict-Transport-Security is not among them: TLS ends in Caddy, which says so for every host (deploy/caddy/Caddyfile).
"""

from __future__ import annotations

from aiohttp import web

__all__ = ["STRICT", "be_strict"]

STRICT = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    # What is not a page of the site has no use for anything; pages bring a policy of their own.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    # Paths and queries of a session's host, which may hold a tenant's secrets, stay with the host they belong to.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
        "magnetometer=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), serial=(), usb=()"
    ),
}


def be_strict(response: web.StreamResponse) -> None:
    """Add what the answer's handler has not set itself."""
    for name, value in STRICT.items():
        response.headers.setdefault(name, value)
