"""Whatever is asked of the API: no server error, no status, header or body that its document does not know.

A bounded number of requests; `python -m tests.fuzz --cases 10000` asks more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fuzz.passes import CALLERS, fuzz
from tests.fuzz.site import Site, site

pytestmark = pytest.mark.integration

EXAMPLES = 3
# The coverage phase alone has more for every caller that may ask everything.
LEAST_CASES = {"nobody": 250, "browser": 250, "script": 250, "proxy": 5}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("caller", CALLERS)
def test_nothing_is_answered_that_is_not_in_the_document(installation: Site, caller: str) -> None:
    outcome = fuzz(installation, caller, examples=EXAMPLES, seed=1)
    assert outcome.clean, "\n".join([outcome.told, *installation.failures()])
    assert outcome.cases >= LEAST_CASES[caller]
    assert installation.failures() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["status", "body", "header"])
def test_what_the_document_does_not_know_is_found(installation: Site, fault: str) -> None:
    served = json.loads(installation.document().read_text())
    health = served["paths"]["/healthz"]["get"]
    if fault == "status":
        del health["responses"]["200"]
    elif fault == "body":
        served["components"]["schemas"]["Health"]["properties"]["status"] = {"enum": ["splendid"]}
    else:
        health["responses"]["200"]["headers"]["X-Absent"] = {"required": True, "schema": {"type": "string"}}
    changed = installation.directory / f"without-{fault}.json"
    changed.write_text(json.dumps({**served, "paths": {"/healthz": {"get": health}}}))
    outcome = fuzz(installation, "nobody", examples=1, seed=1, document=changed)
    assert not outcome.clean
