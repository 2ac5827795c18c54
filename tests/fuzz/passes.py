"""One pass of schemathesis over the served document, in the name of nobody, a browser, a script or the proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.fuzz.site import Site

__all__ = ["CALLERS", "Outcome", "fuzz"]

CALLERS = ("nobody", "browser", "script", "proxy")

# Left out, each with its reason: requests that fit their schema are refused for good reasons that no schema can tell
# (an address that is taken, a cursor that no listing gave out).
_EXCLUDED_CHECKS = ("positive_data_acceptance",)
# The one server error that is the contract's: nobody has switched the private tier on.
_CONFIGURATION = """\
[[operations]]
include-name = "POST /api/v1/sessions"

[operations.checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501]
"""


@dataclass(frozen=True)
class Outcome:
    """`cases` were judged; `told` is everything that schemathesis says."""

    caller: str
    cases: int
    failures: int
    told: str

    @property
    def clean(self) -> bool:
        return self.failures == 0


def fuzz(site: Site, caller: str, *, examples: int, seed: int, document: Path | None = None) -> Outcome:
    """Ask every operation, with at most so many generated examples for each and phase of the run.

    `document`: another one than is served.
    """
    report = site.directory / f"fuzz-{caller}.json"
    configuration = site.directory / "schemathesis.toml"
    configuration.write_text(_CONFIGURATION)
    argv = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(configuration), "run"),
        str(document or site.document()),
        *("--url", site.url),
        *("--max-examples", str(examples), "--seed", str(seed), "--workers", "2"),
        *("--exclude-checks", ",".join(_EXCLUDED_CHECKS), "--continue-on-failure"),
        # Who is asking is said once for all below; a request without it would carry it all the same.
        *("--generation-with-security-parameters", "false"),
        *("--generation-database", "none", "--report", "json", "--report-json-path", str(report), "--no-color"),
        *("--request-timeout", "30", "--output-truncate", "false"),
        *_identity(site, caller),
    ]
    done = subprocess.run(argv, cwd=site.directory, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    if not report.exists():
        raise AssertionError(f"schemathesis wrote no report:\n{told}")
    found = json.loads(report.read_text())
    failures = found["test_cases"]["unique_failures"] + len(found["errors"]) + (not found["complete"])
    if done.returncode != 0 and not failures:
        raise AssertionError(f"schemathesis ended with {done.returncode} and tells no failure:\n{told}")
    return Outcome(caller, found["test_cases"]["generated"], failures, told)


def _identity(site: Site, caller: str) -> list[str]:
    if caller == "nobody":
        return []
    cookie = site.sign_up(f"{uuid4().hex}@example.org", admin=True)
    if caller == "script":
        return ["--header", f"Authorization: Bearer {site.api_token(cookie)}"]
    if caller == "proxy":
        only = ["--include-path", "/api/v1/auth/session-proxy"]
        return [
            *only,
            "--header",
            f"Host: {site.session_host(cookie)}",
            "--header",
            f"Cookie: medforge_session={cookie}",
        ]
    # Signing out would end the pass; the others try it.
    return ["--header", f"Cookie: medforge_session={cookie}", "--exclude-path", "/api/v1/auth/logout"]
