"""OpenZFS in the kernel through libzfs_core: the conformance suite of workspaces and the tests on real ZFS, inside."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.hostlab.host import POOL, PYTHON, SOURCE, Host

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("suite", "at_least"), [("tests/conformance/test_workspaces.py", 40), ("tests/host/test_workspaces_zfs.py", 20)]
)
def test_the_suites_of_workspaces_pass_on_libzfs_core(host: Host, suite: str, at_least: int) -> None:
    answer = host.ask(
        # Not /tmp, where nothing is setuid: a control of the tests needs that.
        f"cd {SOURCE} && TMPDIR=/var/tmp {PYTHON} -m pytest --lanes unit,integration,host -q -k libzfs_core -p no:cacheprovider "
        # Debian's pyzfs splits in a way that Python 3.13 warns about.
        "-W default::DeprecationWarning "
        f"--timeout 600 {suite} 2>&1",
        seconds=1700,
    )
    assert answer.code == 0, answer.stdout[-6000:]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|failed)", answer.stdout)}
    print(f"{suite}: {counts}")
    assert counts["passed"] >= at_least
    # What can only be on ZFS in user space, and nothing of libzfs_core's own.
    assert counts.get("skipped", 0) <= 2, answer.stdout[-3000:]


def test_a_sessions_dataset_has_its_quota_and_owner(host: Host, session: dict[str, Any]) -> None:
    dataset = session["workspace_zfs"]
    assert dataset == f"{POOL}/medforge/workspaces/{session['user_id']}/{session['id']}"
    told = host.run(f"zfs get -Hp -o property,value refquota,setuid,devices,mounted {dataset}")
    assert dict(line.split("\t") for line in told.splitlines()) == {
        "refquota": str(64 * 1024**2), "setuid": "off", "devices": "off", "mounted": "yes",
    }  # fmt: skip
    assert host.run(f"stat -c '%u:%g' /{dataset}").strip() == "1000:1000"
    full = host.inside(session, "dd if=/dev/urandom of=/workspace/big bs=1M count=100 2>&1; sync; rm /workspace/big")
    assert "quota" in full.stdout.lower() or "space" in full.stdout.lower(), full


def test_stopping_takes_a_snapshot_from_which_files_come_back(host: Host, alice: str) -> None:
    session = host.start_session(alice)
    assert host.inside(session, "echo kept >/workspace/thesis").code == 0
    ended = host.stop_session(session, alice)
    assert ended["status"] == "stopped"
    dataset = session["workspace_zfs"]
    (snapshot,) = host.run(f"zfs list -H -t snapshot -o name {dataset}").split()
    assert re.fullmatch(rf"{re.escape(dataset)}@stop-\d{{13}}", snapshot)
    # Restored by libzfs_core itself, as the adapter does it: a clone of the snapshot with what was in it.
    restored = f"{dataset}-restored"
    host.run(
        f'{PYTHON} -c \'import libzfs_core; libzfs_core.lzc_clone(b"{restored}", b"{snapshot}")\' && zfs mount {restored}'
    )
    try:
        assert host.run(f"cat $(zfs get -H -o value mountpoint {restored})/thesis") == "kept\n"
    finally:
        host.run(f"zfs destroy {restored}")


def test_a_stop_is_told_once_and_leaves_no_container(host: Host, alice: str) -> None:
    session = host.start_session(alice)
    host.stop_session(session, alice)
    (stop,) = host.journal("EVENT=session.stop", f"SLUG={session['slug']}")
    assert stop["SESSION_ID"] == session["id"]
    assert host.run(f"docker ps --all --quiet --filter name=mf-session-{session['slug']}") == ""
