"""Every code of the daemon has its answer, and none repeats the daemon's words."""

from __future__ import annotations

import pytest

from facade.sessions.refusals import problem_of
from medforged.client import DaemonError
from medforged.contract.errors import ErrorCode

pytestmark = pytest.mark.unit

SECRET = "/var/lib/medforge/medforge.db is locked"


@pytest.mark.parametrize("code", list(ErrorCode))
@pytest.mark.parametrize("starting", [True, False])
def test_every_code_is_told_without_the_daemons_words(code: ErrorCode, starting: bool) -> None:
    problem = problem_of(DaemonError(code, SECRET), starting=starting)
    assert 400 <= problem.status < 600
    assert SECRET not in problem.detail
    assert problem.detail


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        (ErrorCode.SESSION_LIMIT_REACHED, 409, "Concurrent session limit reached"),
        (ErrorCode.NO_GPU_AVAILABLE, 409, "No GPUs available"),
        (ErrorCode.CREATE_FAILED, 500, "Failed to start session runtime."),
        (ErrorCode.HOST_FAILED, 500, "Failed to start session runtime."),
        (ErrorCode.INTERNAL, 500, "Failed to start session runtime."),
        (ErrorCode.TIER_UNAVAILABLE, 501, "The private tier is not available."),
        (ErrorCode.PACK_NOT_FOUND, 404, "Pack not found."),
    ],
)
def test_creating_says_what_the_contract_says(code: ErrorCode, status: int, detail: str) -> None:
    problem = problem_of(DaemonError(code, SECRET), starting=True)
    assert (problem.status, problem.detail) == (status, detail)


@pytest.mark.parametrize("code", [ErrorCode.UNREACHABLE, ErrorCode.SHUTTING_DOWN])
def test_what_passes_can_be_tried_again(code: ErrorCode) -> None:
    problem = problem_of(DaemonError(code, SECRET), starting=True)
    assert problem.status == 503
    assert int(problem.headers["Retry-After"]) > 0
