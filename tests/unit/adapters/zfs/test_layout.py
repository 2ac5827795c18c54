"""Names and paths of workspaces in a pool."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from medforged.adapters.zfs.layout import Layout
from medforged.domain.errors import WorkspaceError
from medforged.domain.workspaces import WorkspaceKey

pytestmark = pytest.mark.unit

USER, SESSION = "33a2a1d2-b8db-46a3-8574-b0265b644936", "eeb20d99-2312-460a-8399-0190967b32f0"
KEY = WorkspaceKey(UUID(USER), UUID(SESSION))
LAYOUT = Layout.of("tank", "medforge/workspaces", None)


def test_a_workspace_is_named_and_mounted_as_the_contract_says() -> None:
    workspace = LAYOUT.workspace(KEY)
    assert workspace.dataset == f"tank/medforge/workspaces/{USER}/{SESSION}"
    assert workspace.path == Path(f"/tank/medforge/workspaces/{USER}/{SESSION}")
    assert LAYOUT.user_dataset(KEY) == f"tank/medforge/workspaces/{USER}"
    assert LAYOUT.ancestors == ("tank/medforge",)


def test_another_mount_root() -> None:
    layout = Layout.of("tank", "workspaces", Path("/srv/work"))
    assert layout.workspace(KEY).path == Path(f"/srv/work/{USER}/{SESSION}")
    assert layout.mount_path(f"tank/workspaces/{USER}") == Path(f"/srv/work/{USER}")
    assert layout.ancestors == ()


def test_keys_come_back_from_names() -> None:
    assert LAYOUT.key(LAYOUT.workspace(KEY).dataset) == KEY


@pytest.mark.parametrize(
    "name",
    [
        "tank/medforge/workspaces",
        f"tank/medforge/workspaces/{USER}",
        f"tank/medforge/workspaces/{USER}/{SESSION}/child",
        f"tank/medforge/workspaces/{USER}/backup",
        f"tank/medforge/workspaces/{USER.upper()}/{SESSION}",
        f"tank/medforge/workspaces/{USER.replace('-', '')}/{SESSION}",
        f"tank/medforge/workspaces/{{{USER}}}/{SESSION}",
        f"tank/medforge/other/{USER}/{SESSION}",
        f"tank/medforge/workspaces-old/{USER}/{SESSION}",
    ],
)
def test_anything_else_is_no_workspace(name: str) -> None:
    assert LAYOUT.key(name) is None


@pytest.mark.parametrize(
    ("pool", "root"),
    [
        ("", "a"),
        ("tank", ""),
        ("-r", "a"),
        ("tank", "a/-o"),
        ("tank", "/a"),
        ("tank", "a//b"),
        ("tank", "a@b"),
        ("a b", "c"),
    ],
)
def test_refuses_what_is_no_name(pool: str, root: str) -> None:
    with pytest.raises(WorkspaceError, match=r"set workspaces\.pool and workspaces\.root"):
        Layout.of(pool, root, None)


@pytest.mark.parametrize("mount_root", ["relative", "/srv/../etc"])
def test_refuses_a_mount_root_that_is_not_absolute(mount_root: str) -> None:
    with pytest.raises(WorkspaceError, match=r"set workspaces\.mount_root"):
        Layout.of("tank", "a", Path(mount_root))


def test_names_of_snapshots_stay_within_the_limit_of_zfs() -> None:
    longest = Layout.of("tank", "x" * (80 - len("tank/")), None)
    assert len(f"{longest.workspace(KEY).dataset}@{'s' * 100}") == 255
    with pytest.raises(WorkspaceError, match=r"set a shorter workspaces\.root"):
        Layout.of("tank", "x" * (81 - len("tank/")), None)
