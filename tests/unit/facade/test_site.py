"""Which files of the web UI are served, under which address, and for how long a browser may keep them."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from facade.hosts import Hosts
from facade.problems import Problem
from facade.site import Site

pytestmark = pytest.mark.unit

HOST = "medforge.example.test"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "web"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<p>home</p>")
    (root / "login.html").write_text("<p>login</p>")
    (root / "assets" / "app.js").write_text("1")
    (root / "assets" / "app.0a1b2c3d.js").write_text("2")
    (root / "assets" / "dashboard.css").write_text("a{}")
    (root / "assets" / "logo.svg").write_text("<svg/>")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("hidden")
    (root / ".env").write_text("hidden")
    (root / "assets" / "out").symlink_to(tmp_path / "secret")
    (root / "assets" / "{id}").write_text("not a name")
    return root


def site(root: Path | None, *, any_host: bool = False) -> Site:
    return Site(root, Hosts("example.test", 443), any_host=any_host)


async def get(site: Site, path: str, host: str = HOST, **headers: str) -> web.Response:
    named = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    response = await site.get(make_mocked_request("GET", path, named))
    assert isinstance(response, web.Response)
    return response


def test_every_visible_file_has_one_address(root: Path) -> None:
    app = web.Application()
    site(root).mount(app)
    assert sorted(resource.canonical for resource in app.router.resources()) == [
        "/",
        "/assets/app.0a1b2c3d.js",
        "/assets/app.js",
        "/assets/dashboard.css",
        "/assets/logo.svg",
        "/login",
    ]


@pytest.mark.parametrize(
    ("path", "content_type", "cached"),
    [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/login", "text/html; charset=utf-8", "no-cache"),
        ("/assets/app.js", "text/javascript; charset=utf-8", "no-cache"),
        ("/assets/dashboard.css", "text/css; charset=utf-8", "no-cache"),
        ("/assets/logo.svg", "image/svg+xml; charset=utf-8", "no-cache"),
        ("/assets/app.0a1b2c3d.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
    ],
)
async def test_types_and_caching(root: Path, path: str, content_type: str, cached: str) -> None:
    response = await get(site(root), path)
    assert response.status == 200
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Cache-Control"] == cached


async def test_pages_may_load_what_is_ours_alone(root: Path) -> None:
    policy = (await get(site(root), "/")).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def test_a_browser_that_has_the_file_is_told_so(root: Path) -> None:
    first = await get(site(root), "/")
    etag = first.headers["ETag"]
    for header in (etag, f'"x", {etag}', f"W/{etag}"):
        again = await get(site(root), "/", If_None_Match=header)
        assert (again.status, again.body) == (304, None)
    assert (await get(site(root), "/", If_None_Match='"x"')).status == 200


@pytest.mark.parametrize("host", ["api.medforge.example.test", "s-abcd2345.medforge.example.test", "evil.test", ""])
async def test_only_the_sites_own_host_has_pages(root: Path, host: str) -> None:
    with pytest.raises(Problem) as caught:
        await get(site(root), "/", host)
    assert caught.value.status == 404


async def test_any_host_does_not_include_sessions(root: Path) -> None:
    anywhere = site(root, any_host=True)
    assert (await get(anywhere, "/", "127.0.0.1:8080")).status == 200
    with pytest.raises(Problem):
        await get(anywhere, "/", "s-abcd2345.medforge.example.test")


async def test_the_login_page_does_not_lead_elsewhere(root: Path) -> None:
    assert (await get(site(root), "/login?next=https%3A%2F%2Fs-abcd2345.medforge.example.test%2Fx")).status == 200
    sent = await get(site(root), "/login?next=https%3A%2F%2Fevil.test%2F")
    assert (sent.status, sent.headers["Location"]) == (302, "/login")


def test_without_files_nothing_is_served(tmp_path: Path) -> None:
    for root in (None, tmp_path / "missing"):
        app = web.Application()
        site(root).mount(app)
        assert not list(app.router.resources())
