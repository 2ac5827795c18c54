"""Upgrades: the databases are copied and migrated, sessions go on, and what is not well is replaced by what was before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.hostlab.host import CURRENT, WHEELS, Host
from tests.hostlab.releases import make

pytestmark = [pytest.mark.hostlab, pytest.mark.timeout(1800)]

DATABASES = {"daemon": "/var/lib/medforge/medforged.db", "facade": "/var/lib/medforge-facade/facade.db"}


def schema(host: Host, database: str) -> str:
    look = f'import sqlite3; print(sqlite3.connect("{database}").execute("SELECT version_num FROM alembic_version").fetchone()[0])'
    return host.run(f"python3 -c '{look}'").strip()


def schemas(host: Host) -> dict[str, str]:
    return {name: schema(host, path) for name, path in DATABASES.items()}


def copies(host: Host) -> dict[str, list[str]]:
    """The folders of copies, oldest first."""
    homes = {"daemon": "/var/lib/medforge/upgrades", "facade": "/var/lib/medforge-facade/upgrades"}
    return {
        name: [f"{home}/{one}" for one in host.run(f"ls {home} 2>/dev/null || true").split()]
        for name, home in homes.items()
    }


@pytest.fixture(scope="module")
def working(host: Host, alice: str) -> Iterator[dict[str, Any]]:
    """A session in which somebody works through all of it."""
    session = host.start_session(alice)
    assert host.inside(session, "echo thesis >/workspace/thesis").code == 0
    yield session
    assert host.stop_session(session, alice)["status"] == "stopped"


def process(host: Host, session: dict[str, Any]) -> str:
    return host.run(
        f"docker inspect --format '{{{{.Id}}}} {{{{.State.Pid}}}} {{{{.State.StartedAt}}}}' mf-session-{session['slug']}"
    )


def goes_on(host: Host, session: dict[str, Any], alice: str) -> bool:
    return (
        host.get(f"s-{session['slug']}", "/healthz", alice).status == 200
        and host.inside(session, "cat /workspace/thesis").stdout == "thesis\n"
        and host.session(session, alice)["status"] == "running"
    )


def test_the_package_upgrades_while_people_work(host: Host, working: dict[str, Any], alice: str) -> None:
    before, was = process(host, working), schemas(host)
    folder = make(host, "/opt/next", "0.2.0", migrations=1)
    host.run(f"{folder}/deploy/package --wheels {WHEELS} --output /opt/packages", seconds=600)
    answer = host.ask("dpkg --install /opt/packages/medforge_0.2.0_amd64.deb 2>&1", seconds=1200)
    assert answer.code == 0, answer.stdout
    host.until_well()
    assert host.status()["version"] == "0.2.0"
    assert host.run("medforgectl --version").strip() == "medforgectl 0.2.0"
    assert process(host, working) == before
    assert goes_on(host, working, alice)
    # Migrated, with the databases of before kept, each readable by its owner alone.
    assert schemas(host) == {"daemon": "9000", "facade": "9000"}
    kept = copies(host)
    for name, path in DATABASES.items():
        copy = f"{kept[name][-1]}/{path.rsplit('/', 1)[1]}"
        assert schema(host, copy) == was[name]
        owner = "root" if name == "daemon" else "medforge-facade"
        assert host.run(f"stat -c '%a %U' {copy} {kept[name][-1]}").split("\n")[:2] == [f"600 {owner}", f"700 {owner}"]
    assert host.run("ls /run/systemd/system/medforged.service.d 2>/dev/null || true").strip() == ""
    assert host.run("ls /usr/lib/medforge/releases | wc -l").strip() == "2"


def test_a_release_that_is_not_well_is_replaced_by_the_one_before(
    host: Host, working: dict[str, Any], alice: str
) -> None:
    before, was, now = process(host, working), schemas(host), host.run(f"readlink {CURRENT}")
    folder = make(host, "/opt/broken", "0.3.0", migrations=2, facade_ends=True)
    answer = host.ask(f"{folder}/deploy/install --no-packages --no-images --wheels {WHEELS}", seconds=1500)
    assert answer.code == 1, answer.stderr
    assert "0.2.0" in answer.stderr
    assert "serves again" in answer.stderr
    assert "medforge-facade.service does not start" in answer.stderr, answer.stderr
    assert "medforge-facade.service said last: this release cannot serve" in answer.stderr, answer.stderr
    host.until_well()
    assert host.status()["version"] == "0.2.0"
    assert host.run(f"readlink {CURRENT}") == now
    assert process(host, working) == before
    assert goes_on(host, working, alice)
    # Both had been migrated further; both are as they were, and what was meanwhile is kept aside.
    assert schemas(host) == was
    kept = copies(host)
    for name, path in DATABASES.items():
        assert schema(host, f"{kept[name][-1]}/{path.rsplit('/', 1)[1]}.later") == "9100"
    assert host.run("ls /usr/lib/medforge/releases").split() == [now.strip().rsplit("/", 1)[1]]
    assert host.run("ls /run/systemd/system/medforged.service.d 2>/dev/null || true").strip() == ""
    # Accounts work as before: reading and writing.
    assert host.get("api", "/api/v1/me", alice).status == 200
    assert host.sign_up("carol@example.org")


def test_the_host_stays_upgradable(host: Host) -> None:
    """After a way back nothing is left that would keep the next upgrade from working."""
    assert host.run("systemctl --failed --plain --no-legend").strip() == ""
    assert host.ask("flock --nonblock /usr/lib/medforge/.lock true").code == 0
    assert host.run("dpkg --audit").strip() == ""
