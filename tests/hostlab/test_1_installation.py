"""`deploy/install` on a booted host: what it makes, that it is well, and that a second run changes nothing."""

from __future__ import annotations

import json
import re

import pytest

from tests.hostlab.conftest import INSTALL, NVML, Installed
from tests.hostlab.host import CURRENT, Host

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(1200)]

UNITS = (
    "medforge.target",
    "medforged.socket",
    "medforged.service",
    "medforge-facade.socket",
    "medforge-facade-operator.socket",
    "medforge-facade.service",
    "medforge-caddy.service",
)


def test_it_says_what_runs_and_what_is_still_missing(installed: Installed) -> None:
    assert re.search(r"MedForge [\d.]+ runs", installed.told)
    assert "medforgectl doctor" in installed.told
    assert "Traceback" not in installed.told


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_active_and_enabled(host: Host, unit: str) -> None:
    assert host.ask(f"systemctl is-active {unit}").stdout.strip() == "active"
    assert host.ask(f"systemctl is-enabled {unit}").stdout.strip() in ("enabled", "indirect")


def test_no_unit_of_the_host_has_failed(host: Host) -> None:
    assert host.run("systemctl --failed --plain --no-legend").strip() == ""


def test_real_parts_serve(host: Host) -> None:
    adapters = {one["port"]: (one["adapter"], one["real"]) for one in host.status()["adapters"]}
    assert adapters["workspaces"] == ("libzfs_core", True)
    assert adapters["containers"] == ("docker", True)
    assert adapters["gpus"] == ("nvml", True)
    assert adapters["isolation"][1] is True
    assert "GPUs by cdi" in next(one["reason"] for one in host.status()["adapters"] if one["port"] == "containers")


def test_files_belong_to_root_and_nobody_else_can_write_them(host: Host) -> None:
    assert (
        host.run(f"find -L {CURRENT}/ /etc/medforge \\( -not -user root -o -perm /022 \\) -not -type l").strip() == ""
    )
    modes = host.run("stat -c '%a %U %G %n' /var/lib/medforge /var/lib/medforge-facade /var/lib/medforge-caddy").split(
        "\n"
    )
    assert modes[:3] == [
        "700 root root /var/lib/medforge",
        "700 medforge-facade medforge-facade /var/lib/medforge-facade",
        "700 medforge-caddy medforge-caddy /var/lib/medforge-caddy",
    ]


def test_a_second_run_changes_nothing(host: Host) -> None:
    def state() -> list[str]:
        services = "medforged.service medforge-facade.service medforge-caddy.service"
        return [
            host.run(f"systemctl show {services} --property=InvocationID"),
            host.run("sha256sum /etc/medforge/*; ls /usr/lib/medforge/releases; readlink /usr/lib/medforge/current"),
        ]

    before = state()
    answer = host.ask(f"{INSTALL} 2>&1", seconds=600)
    assert answer.code == 0, answer.stdout
    assert "is up to date" in answer.stdout
    assert state() == before


def test_a_unit_that_was_lost_is_put_back(host: Host) -> None:
    host.run("rm /usr/lib/systemd/system/medforge-facade.socket; echo '# broken' > /usr/lib/tmpfiles.d/medforge.conf")
    answer = host.ask(f"{INSTALL} 2>&1", seconds=600)
    assert answer.code == 0, answer.stdout
    assert "put back" in answer.stdout
    source = f"{CURRENT}/systemd"
    host.run(f"cmp {source}/medforge-facade.socket /usr/lib/systemd/system/medforge-facade.socket")
    host.run(f"cmp {source}/tmpfiles.d/medforge.conf /usr/lib/tmpfiles.d/medforge.conf")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("--domain Example.org", 78, "in lower case"),
        ("--https-port 0", 78, "from 1 to 65535"),
        ("--pool ../tank", 78, "name of a ZFS pool"),
        ("--domain example.org", 78, "says localhost; change it there"),
        ("--pool other", 78, "says tank; change it there"),
        ("--wheels /nonexistent", 66, "no such folder"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(host: Host, arguments: str, code: int, told: str) -> None:
    before = host.run("sha256sum /etc/medforge/*")
    answer = host.ask(f"{INSTALL} {arguments}", seconds=600)
    assert (answer.code, answer.stdout) == (code, "")
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("cannot go on: ")
    assert told in last
    assert host.run("sha256sum /etc/medforge/*") == before


def test_only_root_installs_and_only_one_at_a_time(host: Host) -> None:
    answer = host.ask("setpriv --reuid=1000 --clear-groups /opt/source/deploy/install")
    assert (answer.code, "needs root" in answer.stderr) == (77, True)
    answer = host.ask(f"flock /usr/lib/medforge/.lock {INSTALL}")
    assert (answer.code, "at work" in answer.stderr) == (75, True)


def test_settings_that_cannot_be_used_stop_before_anything_is_changed(host: Host) -> None:
    host.run("cp /etc/medforge/medforged.toml /tmp/kept; echo 'nonsense = 1' >> /etc/medforge/medforged.toml")
    try:
        answer = host.ask(INSTALL, seconds=600)
    finally:
        host.run("cp /tmp/kept /etc/medforge/medforged.toml")
    assert answer.code == 78
    assert "nonsense" in answer.stderr
    assert not host.unwell()


def test_doctor_finds_the_host_fit(host: Host) -> None:
    answer = host.ask(f"env {NVML} medforgectl doctor -o json")
    found = json.loads(answer.stdout)["examinations"]
    failed = {one["subject"]: one["message"] for one in found if one["verdict"] == "failed"}
    # No toolkit here: its checks have to say so, and nothing else may have failed.
    assert set(failed) == {"NVIDIA Container Toolkit"}
    assert answer.code == 69
    assert all(one["remedy"] for one in found if one["verdict"] in ("failed", "warning"))
    looked_at = {one["subject"] for one in found if one["verdict"] == "ok"}
    assert looked_at >= {
        "Docker", "ZFS", "pool tank", "GPUs", "GPU injection", "br_netfilter", "iptables", "ip6tables", "forwarding",
        "sessions' network", "Caddy's address", "medforged", "medforge-facade", "daemon's mounts", "Caddy's settings",
        "answer of medforge.localhost", "answer of api.medforge.localhost",
        "answer of s-aaaaaaaa.medforge.localhost", "image of pack default", "persistence mode",
    }  # fmt: skip
