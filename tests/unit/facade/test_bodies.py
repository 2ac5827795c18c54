"""Bodies that are right, and what is said of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from facade.problems import Problem
from facade.schemas.bodies import Empty, read_body
from facade.schemas.sessions import CreateSession
from facade.schemas.users import Credentials, checked_credentials

pytestmark = pytest.mark.unit


class Nested(msgspec.Struct, forbid_unknown_fields=True):
    items: list[CreateSession]


def posted(body: bytes, content_type: str | None = "application/json", **headers: str) -> web.Request:
    loop = asyncio.get_running_loop()
    payload = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    if content_type is not None:
        named["Content-Type"] = content_type
    return make_mocked_request("POST", "/", named, payload=payload)


async def refused(type_: type[msgspec.Struct], body: bytes, *args: Any, **headers: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await read_body(posted(body, *args, **headers), type_)
    return caught.value


async def test_right() -> None:
    body = await read_body(posted(b'{"tier":"private"}', "application/json; charset=utf-8"), CreateSession)
    assert body == CreateSession(tier=body.tier)
    assert body.tier == "private"


async def test_no_body_is_an_empty_object() -> None:
    assert await read_body(posted(b"", None), CreateSession) == CreateSession()
    assert await read_body(posted(b"{}"), Empty) == Empty()


@pytest.mark.parametrize(
    ("type_", "body", "loc", "kind"),
    [
        (CreateSession, b"{", ["body"], "json_invalid"),
        (CreateSession, b"{} x", ["body"], "json_invalid"),
        (CreateSession, b"\xff\xfe", ["body"], "json_invalid"),
        (CreateSession, b'{"tier":"\xff"}', ["body"], "json_invalid"),
        (CreateSession, b'{"tier": NaN}', ["body"], "json_invalid"),
        (Credentials, b'{"email":"\\ud800","password":""}', ["body"], "json_invalid"),
        (CreateSession, b"[]", ["body"], "type_error"),
        (CreateSession, b"null", ["body"], "type_error"),
        (CreateSession, b'{"tier": 1}', ["body", "tier"], "type_error"),
        (CreateSession, b'{"tier": "secret"}', ["body", "tier"], "value_error"),
        (CreateSession, b'{"pack_id": "x"}', ["body", "pack_id"], "value_error"),
        (CreateSession, b'{"gpu_id": 1}', ["body", "gpu_id"], "extra_forbidden"),
        (Empty, b'{"force": true}', ["body", "force"], "extra_forbidden"),
        (Credentials, b"{}", ["body", "email"], "missing"),
        (Nested, b'{"items":[{},{"tier":"x"}]}', ["body", "items", "1", "tier"], "value_error"),
        (Nested, b'{"items":[{"x":1}]}', ["body", "items", "0", "x"], "extra_forbidden"),
    ],
)
async def test_what_is_wrong_is_located(type_: type[msgspec.Struct], body: bytes, loc: list[str], kind: str) -> None:
    problem = await refused(type_, body)
    assert (problem.status, problem.type, problem.code) == (422, "validation/request", "request_validation_failed")
    (error,) = problem.errors
    assert (error.loc, error.type) == (loc, kind)
    assert error.msg


async def test_nesting_without_end_is_only_invalid() -> None:
    problem = await refused(CreateSession, b'{"x":' * 20_000)
    assert problem.status == 422


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_only_json_is_taken(content_type: str | None) -> None:
    assert (await refused(CreateSession, b"{}", content_type)).status == 415


async def test_compressed_bodies_are_not_taken() -> None:
    assert (await refused(CreateSession, b"{}", Content_Encoding="gzip")).status == 415


def test_every_fault_of_new_credentials_is_told_at_once() -> None:
    with pytest.raises(Problem) as caught:
        checked_credentials(Credentials(email="nobody", password="short"))
    assert [error.loc for error in caught.value.errors] == [["body", "email"], ["body", "password"]]


def test_credentials_do_not_show_themselves() -> None:
    assert "secret" not in repr(Credentials(email="a@example.org", password="secret"))
