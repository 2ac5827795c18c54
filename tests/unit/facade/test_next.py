"""Where the login page may lead, told of addresses that nobody has thought of: the site and its sessions, or nowhere.

What browsers themselves make of such addresses, tests/browser/test_next.py asks one.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from facade.hosts import Hosts
from facade.site import Site
from tests.fixtures.addresses import HOST, SLUG, addresses

pytestmark = pytest.mark.unit

HOSTS = {port: Hosts("example.test", port) for port in (443, 8443)}
OURS = re.compile(rf"(s-[a-z2-7]{{8}}\.)?{re.escape(HOST)}")
# What a request line can hold, and what it cannot.
TARGETS = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60).map("/".__add__),
    st.integers(0, 4000).map(lambda size: "/" + "a" * size),
    addresses(),
)


@given(addresses(), st.sampled_from([443, 8443]))
@settings(max_examples=1000, deadline=None)
def test_what_may_be_followed_is_ours(url: str, port: int) -> None:
    if not HOSTS[port].may_follow(url):
        return
    assert re.fullmatch(r"[\x21-\x7e]+", url), "nothing that a browser would drop or translate"
    assert "\\" not in url
    parts = urlsplit(url)
    if not parts.scheme:
        assert url.startswith("/")
        assert not url.startswith("//")
        return
    assert parts.scheme == "https"
    assert OURS.fullmatch(parts.netloc.removesuffix(f":{port}"))


@given(TARGETS, st.sampled_from([443, 8443]))
@settings(max_examples=500, deadline=None)
def test_the_way_back_from_the_login_page_leads_to_the_same_session(target: str, port: int) -> None:
    hosts = HOSTS[port]
    url = hosts.login_url(SLUG, target)
    assert re.fullmatch(r"[\x21-\x7e]+", url)
    login = urlsplit(url)
    suffix = "" if port == 443 else f":{port}"
    assert (login.scheme, login.netloc, login.path, login.fragment) == ("https", f"{HOST}{suffix}", "/login", "")
    [back] = parse_qs(login.query, strict_parsing=True)["next"]
    assert list(parse_qs(login.query)) == ["next"]
    assert urlsplit(back).netloc == f"s-{SLUG}.{HOST}{suffix}"
    assert hosts.may_follow(back), "or the visitor would not come back"
    if re.fullmatch(r"/[\x21-\x7e]{0,1999}", target):
        sent = back.removeprefix(f"https://s-{SLUG}.{HOST}{suffix}")
        assert sent == target.replace("\\", "%5C")
        assert unquote(sent) == unquote(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root: Path = tmp_path_factory.mktemp("web")
    (root / "login.html").write_text("login")
    return Site(root, HOSTS[443], any_host=False)


@given(url=addresses())
@settings(max_examples=200, deadline=None)
def test_the_login_page_is_served_with_what_may_be_followed_or_without_anything(site: Site, url: str) -> None:
    for spelled in {quote(url, safe="", errors="replace"), quote(url, safe="/:@?&=\\", errors="replace")}:
        response = at_once(site.get(make_mocked_request("GET", f"/login?next={spelled}", {"Host": HOST})))
        if response.status == 302:
            assert response.headers["Location"] == "/login"
        else:
            assert response.status == 200
            [told] = parse_qs(f"next={spelled}", keep_blank_values=True, max_num_fields=None).get("next", [""])[:1]
            assert HOSTS[443].may_follow(told)


def at_once(answer: Coroutine[Any, Any, web.StreamResponse]) -> web.StreamResponse:
    """The result of a coroutine that waits for nothing. An event loop for each of many examples takes long."""
    with pytest.raises(StopIteration) as ended:
        answer.send(None)
    response = ended.value.value
    assert isinstance(response, web.Response)
    return response
