"""`ops/bench proxy`, small: it runs, both sides answer, and its figures are figures. How fast is for the benchmark itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
SMALL = ["--rounds", "1", "--seconds", "1", "--sessions", "3", "--cookies", "7"]
ROW = re.compile(r"^(facade|bare|caddy \+ \S+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)   of 1$", re.MULTILINE)

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed; ops/test as root installs it")
needs_caddy = pytest.mark.skipif(shutil.which("caddy") is None, reason="Debian's caddy is not installed")


def bench(*arguments: str) -> str:
    program = [sys.executable, str(ROOT / "ops" / "lib" / "bench_proxy.py"), *SMALL, *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_wrk
def test_two_workers_directly() -> None:
    told = bench("--only", "direct", "--workers", "2", "--connections", "2")
    assert "direct: 2 workers, 2 connections" in told
    rows = {name: [float(figure) for figure in figures] for name, *figures in ROW.findall(told)}
    assert set(rows) == {"facade", "bare"}
    for per_second, p50, p99, processor, generator in rows.values():
        assert per_second > 10
        assert 0 < p50 <= p99
        assert processor > 1
        assert 0 < generator < 1.5
    assert re.search(r"^throughput [\d.]+ of the floor \((at least|BELOW) 0.90\), p99 [\d.]+ \(", told, re.MULTILINE)


@needs_wrk
@needs_caddy
def test_requests_through_caddy_are_counted() -> None:
    told = bench("--requests", "1", "--workers", "1", "--count-seconds", "1")
    found = re.search(r"requests through Caddy, 1 worker: (\d+); not 200: 0; 502: 0", told)
    assert found is not None, told
    assert int(found[1]) > 1


def test_a_changed_caddyfile_is_noticed() -> None:
    ask = (
        "import sys; sys.path.insert(0, 'ops/lib'); from pathlib import Path; from proxy_sides import of_the_bench; "
        "text = Path('deploy/caddy/Caddyfile').read_text(); made = of_the_bench(text, '127.0.0.1:1234', '/x/y.sock'); "
        "assert '/run/medforge-facade' not in made and 'mf-session-{re.slug.1}:8080 {' not in made, made; "
        "of_the_bench(text.replace('reverse_proxy mf-session-', 'reverse_proxy '), '127.0.0.1:1234', '/x/y.sock')"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert "Failure: deploy/caddy/Caddyfile has changed" in done.stderr
