"""Owns what a person's browser is shown at a session's address while there is no IDE behind it.

A page is one answer of its own: no script, nothing loaded from anywhere, and a policy that allows its own style alone.
What passes by itself is asked for again by the browser, without a script; where the session then runs, that is its IDE.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from html import escape
from http import HTTPStatus

from aiohttp import web

__all__ = ["DENIED", "MISSING", "STARTING", "UNKNOWN", "Page", "page_response"]

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='8' fill='%230b67c2'/%3E%3Cpath d='M8 23V10.5l8 7 8-7V23' fill='none' stroke='%23fff' stroke-width='3.2' "
    "stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E"
)
# The look of the site's own pages (web/assets/medforge.css), as much of it as such a page needs.
_STYLE = """
:root{color-scheme:light dark;--ground:#f5f6f8;--surface:#fff;--text:#151a21;--muted:#566070;--line:#dde2e8;
--accent:#0b67c2}
@media(prefers-color-scheme:dark){:root{--ground:#0e1217;--surface:#171c23;--text:#e7ebf0;--muted:#9ba6b4;--line:#2a323c;
--accent:#6cb2ff}}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--ground);color:var(--text);
font:100%/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",sans-serif}
main{box-sizing:border-box;width:min(30rem,calc(100% - 2rem));padding:2rem;background:var(--surface);
border:1px solid var(--line);border-radius:14px}
h1{margin:0 0 .5rem;font-size:1.4rem;line-height:1.25}
p{margin:0;color:var(--muted)}
div+p{margin-top:1.25rem}
a{color:var(--accent)}
.meter{height:6px;margin:1.25rem 0 0;border-radius:3px;background:var(--line);overflow:hidden}
.meter span{display:block;width:40%;height:100%;border-radius:3px;background:var(--accent);
animation:go 1.6s ease-in-out infinite alternate}
@keyframes go{to{transform:translateX(150%)}}
@media(prefers-reduced-motion:reduce){.meter span{animation:none;width:100%}}
"""
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_METER = '<div class="meter" aria-hidden="true"><span></span></div>'


@dataclass(frozen=True, slots=True)
class Page:
    """`again_seconds`: the browser asks again after so long, and a meter moves meanwhile; 0 for never."""

    status: int
    title: str
    text: str
    again_seconds: int = 0


STARTING = Page(404, "Your session is starting…", "The IDE opens here by itself as soon as it is ready.", 2)
UNKNOWN = Page(503, "One moment…", "MedForge is starting and does not know its sessions yet. This page tries again.", 2)
MISSING = Page(404, "There is no session here", "It has ended, is just being stopped, or has never existed.")
DENIED = Page(403, "This session is somebody else's", "You are signed in, but only its owner may open it.")


def page_response(page: Page, site_url: str, here_url: str) -> web.Response:
    """The page as an answer. `site_url` is where its link leads, `here_url` its own address.

    The address is named although it is the same: what has a fragment, browsers would not load again.
    """
    here = f"{page.again_seconds}; url={here_url}"
    again = f'<meta http-equiv="refresh" content="{escape(here)}">' if page.again_seconds else ""
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{again}<title>{escape(page.title)} · MedForge</title><link rel="icon" href="{_ICON}"><style>{_STYLE}</style>'
        f'</head><body><main><div role="status"><h1>{escape(page.title)}</h1><p>{escape(page.text)}</p></div>'
        f'{_METER if page.again_seconds else ""}<p><a href="{escape(site_url)}">Go to the dashboard</a></p>'
        "</main></body></html>"
    )
    headers = {"Content-Security-Policy": _POLICY}
    if page.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(page.again_seconds)
    return web.Response(status=page.status, text=body, headers=headers, content_type="text/html", charset="utf-8")
