"""What no record explains: found, told, and removed only where nothing of anybody's goes with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from medforged.domain.containers import container_name
from medforged.domain.isolation import Stray, StrayKind
from medforged.domain.orphans import OrphanKind
from medforged.domain.workspaces import WorkspaceKey
from tests.fakes.containers import container_spec
from tests.integration.services.rig import IMAGE, NETWORK, Rig, open_rig

pytestmark = pytest.mark.integration


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


async def test_a_host_that_agrees_has_none(rig: Rig) -> None:
    ended, _ = await rig.create(), await rig.create()
    await rig.ending.request_stop(ended.id)
    await rig.settle()
    assert await rig.orphans.find() == ((), ())
    assert await rig.orphans.remove() == ((), ())
    assert await rig.workspaces.exists(ended.workspace_key)


async def test_orphans_are_listed_and_removed_but_not_what_holds_anything(rig: Rig) -> None:
    session = await rig.create()
    spec = replace(container_spec("orphan23", network=NETWORK.name, image=IMAGE))
    await rig.containers.create(spec)
    empty, full, kept = (WorkspaceKey(uuid4(), uuid4()) for _ in range(3))
    for key in (empty, full, kept):
        await rig.workspaces.create(key, None)
    rig.workspaces.write(full)
    await rig.workspaces.snapshot(kept, "stop-1")
    rig.isolation.add_stray(NETWORK.name, Stray(StrayKind.PORT, "veth9", "it leads to no container"))
    found, problems = await rig.orphans.find()
    assert problems == ()
    assert sorted(orphan.kind for orphan in found) == sorted(
        [OrphanKind.CONTAINER, OrphanKind.PORT, *[OrphanKind.DATASET] * 3]
    )
    assert not any(orphan.removed for orphan in found)

    fates, _ = await rig.orphans.remove()

    removed = {orphan.name for orphan in fates if orphan.removed}
    assert removed == {container_name("orphan23"), rig.workspaces.locate(empty).dataset, "veth9"}
    for key in (full, kept):
        assert await rig.workspaces.exists(key)
        (fate,) = [orphan for orphan in fates if orphan.name == rig.workspaces.locate(key).dataset]
        assert "it has files or snapshots" in fate.message
    assert [seen.name for seen in await rig.containers.containers()] == [session.container_name]
    assert await rig.workspaces.exists(session.workspace_key)


async def test_a_part_that_does_not_answer_is_told_and_hides_no_other(rig: Rig) -> None:
    key = WorkspaceKey(uuid4(), uuid4())
    await rig.workspaces.create(key, None)
    rig.containers.begin_outage()
    found, problems = await rig.orphans.find()
    assert [orphan.name for orphan in found] == [rig.workspaces.locate(key).dataset]
    assert len(problems) == 2  # containers, and the network that strays are looked for on
