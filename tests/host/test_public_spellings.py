"""Thousands of spellings of host, path, cookie and headers through the real Caddy: nothing but the table of section 5.

`MEDFORGE_FUZZ_SEED` repeats a run, `MEDFORGE_FUZZ_CASES` makes it longer; both are printed with what was found.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.host.public_cases import FORGED_VALUE, MARK, REFUSED, Case, make
from tests.host.public_wire import Multiplexed, Plain
from tests.host.public_world import CADDYFILE, World, caddy_drops_underscores, world

pytestmark = pytest.mark.host

CASES = int(os.environ.get("MEDFORGE_FUZZ_CASES", "2500"))
SEED = int(os.environ.get("MEDFORGE_FUZZ_SEED", random.SystemRandom().randrange(2**32)))
# Enough to find any one of the protections missing.
CONTROL_CASES = 600


@pytest.fixture(scope="module")
def public() -> Iterator[World]:
    with world() as made:
        yield made


def run(public: World, seed: int, count: int) -> tuple[list[str], Counter[int | None]]:
    """What went against the table, and how often each status was answered."""
    rng = random.Random(seed)
    cases = [make(public, rng, number) for number in range(count)]
    faults: list[str] = []
    statuses: Counter[int | None] = Counter()
    public.forget()
    with Plain(public.site) as plain:
        for case in cases:
            status = plain.send(case)
            statuses[status] += 1
            if status not in case.statuses:
                faults.append(f"{status}, not one of {set(case.statuses)}: {case.told}")
    return faults + visited(public, cases), statuses


def run_http2(public: World, seed: int, count: int) -> tuple[list[str], Counter[int | None]]:
    """The same over HTTP/2, for what can be said in it."""
    rng = random.Random(seed)
    cases = [case for case in (make(public, rng, number) for number in range(count)) if case.pairs is not None]
    faults: list[str] = []
    statuses: Counter[int | None] = Counter()
    public.forget()
    with Multiplexed(public.site) as multiplexed:
        for case in cases:
            assert case.pairs is not None
            status = multiplexed.send(case.pairs)
            statuses[status] += 1
            # Names that are not ours may be refused as no names at all.
            allowed = case.statuses | (REFUSED if 404 in case.statuses else set())
            if status not in allowed:
                faults.append(f"{status}, not one of {set(case.statuses)}: {case.told}")
    return faults + visited(public, cases), statuses


def visited(public: World, cases: list[Case]) -> list[str]:
    """What the containers saw that they may not have seen, or did not see although they should."""
    faults: list[str] = []
    wanted = {case.mark: case for case in cases}
    seen: Counter[str] = Counter()
    for slug, request in public.recorded():
        marks = request.values(MARK)
        case = wanted.get(marks[0]) if len(marks) == 1 else None
        if case is None or case.reaches != slug:
            faults.append(f"{slug} was reached by {case.told if case else marks}")
            continue
        seen[case.mark] += 1
        for name, value in request.headers:
            low = value.lower()
            if FORGED_VALUE in value or name.lower() == FORGED_VALUE or "_" in name:
                faults.append(f"{name}: {value} reached a session ({case.told})")
            if "medforge_session" in low or "mft_" in low or secret(public, value):
                faults.append(f"{name}: {value} reached a session ({case.told})")
        if not (request.value("Host") or "").startswith(f"s-{slug}.medforge.localhost"):
            faults.append(f"{slug} was reached as {request.value('Host')} ({case.told})")
    for case in cases:
        times = seen[case.mark]
        if times > 1 or (case.certain and times != (case.reaches is not None)):
            faults.append(f"a container saw it {times} times: {case.told}")
    return faults


def secret(public: World, value: str) -> bool:
    """Whether it holds somebody's login."""
    return any(token[:-1] in value for token in public.tokens.values())


def told(faults: list[str], seed: int) -> str:
    return f"seed {seed}, {len(faults)} faults, the first of them:\n" + "\n".join(faults[:12])


def test_no_spelling_leads_anywhere_but_where_the_table_says(public: World) -> None:
    faults, statuses = run(public, SEED, CASES)
    print(f"seed {SEED}: {CASES} requests over HTTP/1.1, answered {dict(statuses)}")
    assert not faults, told(faults, SEED)
    # Every row of the table was met, many times.
    for status in (200, 302, 401, 403, 404, 400):
        assert statuses[status] > CASES / 100, statuses


def test_no_spelling_leads_anywhere_else_over_http2(public: World) -> None:
    faults, statuses = run_http2(public, SEED, CASES // 2)
    print(f"seed {SEED}: {sum(statuses.values())} requests over HTTP/2, answered {dict(statuses)}")
    assert not faults, told(faults, SEED)
    for status in (200, 302, 401, 403, 404):
        assert statuses[status] > CASES / 200, statuses


# What is taken out of the Caddyfile, and a word of what has to be noticed then.
MISSING = {
    "the question is for nobody": ("@session_proxy path_regexp", "@session_proxy path_regexp ^/nothing$\n\t@unused path_regexp", "not one of {403}"),
    "claims are dropped": ("\timport untrusted_headers\n\t\t\trequest_header @platform_token", "\trequest_header @platform_token", "reached a session"),
    "names with an underscore are dropped": ("request_header -*_*", "", "reached a session"),
    "the cookie is taken out": ('request_header Cookie "(?i)(^|;)', 'request_header Cookie "(?i)(^|;)nothing', "medforge_session"),
    "tokens are taken out": ("request_header @platform_token -Authorization", "", "mft_"),
    "other pages may not write": ("\t\t\troute @foreign_write {\n\t\t\t\timport forbidden\n\t\t\t}\n", "", "not one of {403}"),
    "siblings may not ask": ("\t\t\troute @sibling_origin {\n\t\t\t\timport forbidden\n\t\t\t}\n", "", "not one of {403}"),
    "somebody is asked": ("forward_auth unix//run/medforge-facade/facade.sock {\n\t\t\t\turi /api/v1/auth/session-proxy?", "", ""),
}  # fmt: skip


def without(protection: str) -> tuple[str, str]:
    """The Caddyfile without it, and what has to be noticed."""
    there, instead, noticed = MISSING[protection]
    text = CADDYFILE.read_text()
    if protection == "somebody is asked":
        # Everybody is admitted: the name is made of the host alone. One that leads nowhere is not waited for.
        start = text.index("\t\t\tforward_auth unix//")
        end = text.index("\t\t\troute @named {")
        text = text[:start] + text[end:].replace("route @named {", "route {", 1)
        text = text.replace("lb_try_duration 2s", "lb_try_duration 0s")
        return text, "was reached by"
    assert text.count(there) == 1, protection
    return text.replace(there, instead), noticed


@pytest.mark.parametrize("protection", MISSING)
def test_a_protection_that_is_missing_is_noticed(protection: str) -> None:
    if protection == "names with an underscore are dropped" and caddy_drops_underscores():
        pytest.skip("this Caddy takes names with an underscore out by itself")
    caddyfile, noticed = without(protection)
    with contextlib.ExitStack() as stack:
        weak = stack.enter_context(world(caddyfile))
        faults, _ = run(weak, SEED, CONTROL_CASES)
    assert any(noticed in fault for fault in faults), f"seed {SEED}: {faults[:5]}"
