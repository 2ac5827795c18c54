"""Every error code has an exit code, and a socket that may not be opened is told from one that nobody serves."""

from __future__ import annotations

import errno

import pytest

from cli.exitcodes import BROKEN_PIPE, EXIT_CODES, INTERRUPTED, exit_code
from medforged.contract.errors import ErrorCode
from medforged.contract.exitcodes import ExitCode

pytestmark = pytest.mark.unit


def test_every_error_code_has_an_exit_code_that_says_failure() -> None:
    assert set(EXIT_CODES) == set(ErrorCode)
    assert ExitCode.OK not in EXIT_CODES.values()


def test_signals_have_codes_of_their_own() -> None:
    assert not {INTERRUPTED, BROKEN_PIPE} & set(ExitCode)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_socket_that_may_not_be_opened(number: int) -> None:
    assert exit_code(ErrorCode.UNREACHABLE, OSError(number, "no")) is ExitCode.NO_PERMISSION


@pytest.mark.parametrize(
    "cause", [OSError(errno.ECONNREFUSED, "no"), OSError(errno.ENOENT, "no"), TimeoutError(), None]
)
def test_a_socket_that_nobody_serves(cause: BaseException | None) -> None:
    assert exit_code(ErrorCode.UNREACHABLE, cause) is ExitCode.UNAVAILABLE


def test_the_cause_matters_for_an_unreachable_daemon_only() -> None:
    assert exit_code(ErrorCode.SESSION_NOT_FOUND, OSError(errno.EACCES, "no")) is ExitCode.NOT_FOUND
