"""`medforgectl doctor` as a program: on a host where nothing runs it says so, each with its remedy, and ends by kind."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest

from cli.exitcodes import DIAGNOSIS_CODES
from medforged.contract.doctor import Diagnosis, Kind, Verdict
from medforged.contract.exitcodes import ExitCode
from tests.integration.cli.program import Medforgectl

pytestmark = pytest.mark.integration

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at the whole host")


@pytest.fixture
def elsewhere(socket_path: Path, tmp_path: Path) -> Medforgectl:
    """Sockets, pool and domain of its own, none of which are there: nothing of this host is asked for its health."""
    program = Medforgectl(socket_path)
    program.environment |= {
        "MEDFORGED_DAEMON__SOCKET": str(tmp_path / "medforged.sock"),
        "MEDFORGED_CONTAINERS__DOCKER_SOCKET": str(tmp_path / "docker.sock"),
        "MEDFORGED_WORKSPACES__POOL": "no-such-pool",
        "MEDFORGE_FACADE_LISTEN__SOCKET": str(tmp_path / "facade.sock"),
        "MEDFORGE_FACADE_SITE__DOMAIN": "doctor.invalid",
        "MEDFORGE_FACADE_SITE__WEB_ROOT": str(tmp_path / "web"),
        "MEDFORGE_FACADE_AUTH__COOKIE_SECURE": "false",
    }
    return program


def diagnosis(done: subprocess.CompletedProcess[str]) -> Diagnosis:
    return msgspec.json.decode(done.stdout, type=Diagnosis)


@as_root
def test_what_is_missing_is_told_with_its_remedy(elsewhere: Medforgectl) -> None:
    done = elsewhere("doctor", "-o", "json")
    assert done.stderr == ""
    found = {one.subject: one for one in diagnosis(done).examinations}
    failed = {subject for subject, one in found.items() if one.verdict is Verdict.FAILED}
    assert failed >= {
        "default pack", "Docker", "ZFS", "daemon's socket", "medforged", "medforge-facade", "pages",
        "name medforge.doctor.invalid", "name api.medforge.doctor.invalid", "name s-aaaaaaaa.medforge.doctor.invalid",
    }  # fmt: skip
    assert found["cookies"].verdict is Verdict.WARNING
    assert found["certificates"].verdict is Verdict.SKIPPED
    assert "*.medforge.doctor.invalid" in found["name s-aaaaaaaa.medforge.doctor.invalid"].remedy
    for one in found.values():
        assert one.message
        assert bool(one.remedy) == (one.verdict in (Verdict.FAILED, Verdict.WARNING)), one
    # The first kind decides: settings come before everything that depends on them.
    assert done.returncode == ExitCode.CONFIG


@as_root
def test_a_trials_names_need_no_records(elsewhere: Medforgectl) -> None:
    with socket.socket() as taken:
        # Bound, so that it is nobody else's, and not listening.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        elsewhere.environment["MEDFORGE_FACADE_SITE__DOMAIN"] = "localhost"
        elsewhere.environment["MEDFORGE_FACADE_SITE__HTTPS_PORT"] = str(port)
        found = {one.subject: one for one in diagnosis(elsewhere("doctor", "-o", "json")).examinations}
    for name in ("medforge.localhost", "api.medforge.localhost", "s-aaaaaaaa.medforge.localhost"):
        # By itself where the host's resolver knows such names, else as browsers find it.
        assert found[f"name {name}"].verdict in (Verdict.OK, Verdict.WARNING)
        assert "DNS" not in found[f"name {name}"].remedy
    told = found["certificate of medforge.localhost"]
    assert told.verdict is Verdict.FAILED
    assert told.message == f"nobody serves it at port {port}: Connection refused"


@as_root
def test_the_table_names_remedies_and_counts(elsewhere: Medforgectl) -> None:
    done = elsewhere("doctor", "--quiet")
    assert done.returncode == ExitCode.CONFIG
    assert "name medforge.doctor.invalid: make a DNS record" in done.stdout
    assert " ok " not in done.stdout.split("Looked at")[0]
    assert "Looked at" in done.stdout.splitlines()[-1]


@as_root
def test_settings_that_cannot_be_read_are_a_finding_and_the_rest_is_looked_at(elsewhere: Medforgectl) -> None:
    elsewhere.environment["MEDFORGED_SESSIONS__POLL_INTERVAL_SECONDS"] = "never"
    elsewhere.environment["MEDFORGE_FACADE_SITE__HTTPS_PORT"] = "0"
    found = {one.subject: one for one in diagnosis(elsewhere("doctor", "-o", "json")).examinations}
    for subject in ("daemon's settings", "facade's settings"):
        assert found[subject].verdict is Verdict.FAILED
        assert found[subject].kind is Kind.CONFIGURATION
    assert "Docker" in found


def test_whoever_may_not_look_is_told_so(elsewhere: Medforgectl) -> None:
    if os.geteuid() == 0:
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", "--", *elsewhere.argv, "doctor"],
            env=elsewhere.environment, text=True, capture_output=True, check=False,
        )  # fmt: skip
        if "Permission denied" in done.stderr or "No module" in done.stderr:
            pytest.skip("the checkout cannot be read by other users here")
    else:
        done = elsewhere("doctor")
    assert (done.returncode, done.stdout) == (ExitCode.NO_PERMISSION, "")
    assert done.stderr == "medforgectl: cannot look at the whole host: run it as root\n"


def test_every_kind_has_an_exit_code_of_its_own() -> None:
    assert list(DIAGNOSIS_CODES) == list(Kind)
    assert len(set(DIAGNOSIS_CODES.values())) == len(Kind)
