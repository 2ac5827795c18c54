"""Taking MedForge off a host: never while somebody works, and never with what belongs to people."""

from __future__ import annotations

import pytest

from tests.hostlab.host import CURRENT, POOL, Host

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(900)]


def test_nobodys_work_ends_because_it_is_removed(host: Host, alice: str) -> None:
    session = host.start_session(alice)
    answer = host.ask("dpkg --remove medforge 2>&1", seconds=300)
    assert answer.code != 0
    assert "sessions are active" in answer.stdout
    assert host.session(session, alice)["status"] == "running"
    host.stop_session(session, alice)
    host.until_well()


def test_workspaces_are_destroyed_for_nobody_who_does_not_name_them(host: Host) -> None:
    answer = host.ask(f"{CURRENT}/deploy/uninstall --destroy-workspaces {POOL}/medforge")
    assert (answer.code, f"the workspaces are in {POOL}/medforge/workspaces" in answer.stderr) == (2, True)
    assert not host.unwell()


def test_removal_leaves_the_host_clean_and_keeps_data(host: Host) -> None:
    datasets = host.run(f"zfs list -H -r -t all -o name {POOL}/medforge")
    assert "@stop-" in datasets
    answer = host.ask("dpkg --remove medforge 2>&1", seconds=600)
    assert answer.code == 0, answer.stdout
    assert "kept:" in answer.stdout
    # Ends with 1 where there is none.
    assert host.ask("systemctl list-unit-files --plain --no-legend 'medforge*'").stdout.strip() == ""
    assert (
        host.run("ls -d /usr/lib/medforge /usr/bin/medforgectl /run/medforge/*.sock 2>/dev/null || true").strip() == ""
    )
    assert "MEDFORGE" not in host.run("iptables-legacy -S; ip6tables-legacy -S")
    assert host.run("docker ps --all --quiet --filter label=dev.medforge.instance").strip() == ""
    assert host.run("docker network ls --quiet --filter name=medforge-public-sessions").strip() == ""
    assert host.ask("pgrep -f /usr/lib/medforge").code == 1
    assert host.run(f"zfs list -H -r -t all -o name {POOL}/medforge") == datasets
    for path in ("/etc/medforge/facade.toml", "/var/lib/medforge/medforged.db", "/var/lib/medforge-facade/facade.db"):
        assert host.ask(f"test -s {path}").code == 0


def test_purging_takes_settings_and_leaves_what_people_own(host: Host) -> None:
    host.run("dpkg --purge medforge", seconds=120)
    assert host.run("ls -d /etc/medforge /usr/share/medforge 2>/dev/null || true").strip() == ""
    for path in ("/var/lib/medforge/medforged.db", "/var/lib/medforge-facade/facade.db"):
        assert host.ask(f"test -s {path}").code == 0
    assert host.run(f"zfs list -H -o name {POOL}/medforge/workspaces").strip() == f"{POOL}/medforge/workspaces"
