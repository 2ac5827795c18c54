"""The page has everything that the document has, in sound HTML that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from facade.openapi.document import document
from facade.openapi.page import CONTENT_SECURITY_POLICY, page
from tests.fakes.handlers import named_routes

pytestmark = pytest.mark.unit

VOID = {"meta", "br", "wbr"}


class Reader(HTMLParser):
    """Elements as they open and close, ids, links and what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.elements: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(str(value))
            if name == "href":
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def made() -> tuple[dict[str, Any], str]:
    told = document(named_routes(), version="1.2.3")
    return told, page(told)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_every_operation_and_every_type_is_there_and_linked() -> None:
    told, html = made()
    reader = read(html)
    operations = {op["operationId"] for item in told["paths"].values() for op in item.values() if "operationId" in op}
    assert operations | {f"type-{name}" for name in told["components"]["schemas"]} <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)
    inner = {link.removeprefix("#") for link in reader.links if link.startswith("#")}
    assert inner <= set(reader.ids)
    assert operations <= inner


def test_nothing_is_loaded_and_nothing_runs() -> None:
    reader = read(made()[1])
    assert not reader.elements & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not {name for name in reader.attributes if name.startswith("on") or name in ("style", "src")}
    assert {link for link in reader.links if not link.startswith("#")} == {"/api/v1/openapi.json"}


def test_the_policy_allows_its_own_style_alone() -> None:
    found = re.search("<style>(.*?)</style>", made()[1], re.DOTALL)
    assert found
    own = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{own}'" in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_what_the_document_says_cannot_become_markup() -> None:
    told, _ = made()
    evil = "<script>alert(1)</script>`<b>`"
    told["info"] = {"title": evil, "version": evil, "description": evil}
    item = told["paths"]["/api/v1/sessions"]["get"]
    item["summary"] = item["description"] = evil
    item["parameters"][0]["description"] = item["parameters"][0]["name"] = evil
    item["responses"]["200"]["description"] = evil
    told["components"]["schemas"]["Meta"]["description"] = evil
    reader = read(page(told))
    assert not reader.elements & {"script", "b"}
