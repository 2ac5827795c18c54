"""Owns the tests of the API version that is spoken, and of what is read from a log."""

from __future__ import annotations

import doctest

import pytest

from medforged.adapters.docker import engine
from medforged.adapters.docker.commands import MAX_LOG_BYTES, readable
from medforged.adapters.docker.engine import api_version
from medforged.domain.errors import ContainerError

pytestmark = pytest.mark.unit


def test_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(engine).failed == 0


@pytest.mark.parametrize(
    ("newest", "oldest", "chosen"),
    [
        ("1.41", "1.12", "1.41"),  # Docker 20.10
        ("1.43", "1.12", "1.43"),  # 24
        ("1.44", "1.24", "1.44"),  # 25
        ("1.51", "1.24", "1.44"),  # 28
        ("1.52", "1.44", "1.44"),  # 29
        ("1.60", "1.48", "1.48"),  # some day
        ("2.1", "2.0", "2.0"),
    ],
)
def test_version_is_one_that_both_know(newest: str, oldest: str, chosen: str) -> None:
    assert api_version(newest, oldest) == chosen


def test_engine_that_is_too_old_is_refused() -> None:
    with pytest.raises(ContainerError, match=r"its API 1\.40 is too old; install Docker 20\.10"):
        api_version("1.40", "1.12")


@pytest.mark.parametrize(("newest", "oldest"), [("None", "None"), ("1", "1"), ("1.x", "1.0"), ("", "")])
def test_something_that_is_no_engine_is_refused(newest: str, oldest: str) -> None:
    with pytest.raises(ContainerError, match="is it Docker"):
        api_version(newest, oldest)


def test_log_is_text() -> None:
    assert readable("grüß\n".encode()) == "grüß\n"
    assert readable(b"a\xff\xfeb\n") == "a\ufffd\ufffdb\n"
    assert readable(b"") == ""


@pytest.mark.parametrize("byte", [b"x", b"\xff", "ü".encode(), "𝄞".encode()])
def test_log_is_cut_at_its_beginning_and_never_longer_than_its_limit(byte: bytes) -> None:
    text = readable(byte * (2 * MAX_LOG_BYTES) + b"end")

    assert MAX_LOG_BYTES - 8 <= len(text.encode()) <= MAX_LOG_BYTES
    assert text.endswith("end")
