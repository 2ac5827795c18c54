"""What is kept of a simulated host: in memory, and in files that other programs read and write too."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from medforged.adapters.simulated.items import GpuItem
from medforged.adapters.simulated.shelves import FileShelf, FolderLock, Shelf
from medforged.domain.errors import GpuError

pytestmark = pytest.mark.integration

Change = tuple[str, GpuItem | None, GpuItem | None]
FAULTY = GpuItem(fault="lost")


def file_shelf(directory: Path) -> FileShelf[GpuItem]:
    """As another process makes it, with a lock of its own."""
    return FileShelf(directory / "gpus", GpuItem, GpuError, FolderLock(directory / ".lock"))


@pytest.fixture(params=["memory", "folder"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf[GpuItem]:
    return Shelf() if request.param == "memory" else file_shelf(tmp_path)


def changes_of(shelf: Shelf[GpuItem]) -> list[Change]:
    told: list[Change] = []
    shelf.observe(lambda *change: told.append(change))
    return told


def write(directory: Path, name: str, text: str) -> None:
    """As any program may: under another name first."""
    (directory / "gpus").mkdir(exist_ok=True)
    temporary = directory / "gpus" / ".mine"
    temporary.write_text(text)
    temporary.replace(directory / "gpus" / f"{name}.json")


def test_keeps_what_it_was_given_by_name(shelf: Shelf[GpuItem]) -> None:
    assert shelf.get("b") is None
    shelf.put("b", FAULTY)
    shelf.put("a", GpuItem(process_ids=(1, 2)))
    assert shelf.get("b") == FAULTY
    assert list(shelf.items()) == list(shelf.readable()) == ["a", "b"]
    shelf.remove("b")
    shelf.remove("b")
    assert shelf.items() == {"a": GpuItem(process_ids=(1, 2))}


def test_observers_learn_of_every_change_until_they_leave(shelf: Shelf[GpuItem]) -> None:
    told: list[Change] = []
    leave = shelf.observe(lambda *change: told.append(change))
    shelf.put("a", GpuItem())
    shelf.put("a", FAULTY)
    shelf.remove("a")
    shelf.remove("a")
    assert told == [("a", None, GpuItem()), ("a", GpuItem(), FAULTY), ("a", FAULTY, None)]
    shelf.put("a", FAULTY, tell=False)
    shelf.remove("a", tell=False)
    leave()
    shelf.put("a", FAULTY)
    assert len(told) == 3


def test_what_was_there_before_is_found_and_is_no_news(tmp_path: Path) -> None:
    file_shelf(tmp_path).put("a", FAULTY)
    again = file_shelf(tmp_path)
    told = changes_of(again)
    assert again.get("a") == FAULTY
    again.poll()
    assert told == []


def test_a_file_says_what_a_person_would_write(tmp_path: Path) -> None:
    file_shelf(tmp_path).put("GPU-1", GpuItem(fault="lost", process_ids=(7,)))
    text = (tmp_path / "gpus" / "GPU-1.json").read_text()
    assert json.loads(text) == {"fault": "lost", "lasting": True, "process_ids": [7]}
    assert text.count("\n") > 3
    assert [path.name for path in (tmp_path / "gpus").iterdir()] == ["GPU-1.json"]


def test_changes_of_others_are_seen_at_once_and_told_once(tmp_path: Path) -> None:
    ours, theirs = file_shelf(tmp_path), file_shelf(tmp_path)
    told = changes_of(ours)
    theirs.put("a", FAULTY)
    assert ours.get("a") == FAULTY
    theirs.put("b", GpuItem())
    assert list(ours.items()) == ["a", "b"]
    theirs.remove("a")
    ours.poll()
    ours.poll()
    assert told == [("a", None, FAULTY), ("b", None, GpuItem()), ("a", FAULTY, None)]
    theirs.remove("b")
    assert ours.get("b") is None
    assert len(told) == 4


def test_a_change_is_not_missed_because_the_clock_has_not_ticked(tmp_path: Path) -> None:
    ours = file_shelf(tmp_path)
    ours.put("a", GpuItem(process_ids=(1,)))
    path = tmp_path / "gpus" / "a.json"
    now = time.time_ns() + 10**9  # a moment that does not pass meanwhile
    for number in range(1, 5):  # of one file, one size and one time
        path.write_text(path.read_text().replace(str(number), str(number + 1)))
        os.utime(path, ns=(now, now))
        assert ours.get("a") == GpuItem(process_ids=(number + 1,))


def test_quick_changes_of_two_are_all_seen(tmp_path: Path) -> None:
    ours, theirs = file_shelf(tmp_path), file_shelf(tmp_path)
    for number in range(1000, 1200):
        theirs.put("a", GpuItem(process_ids=(number,)))
        assert ours.get("a") == GpuItem(process_ids=(number,))


def test_a_file_that_nobody_touches_is_not_read_again(tmp_path: Path) -> None:
    ours = file_shelf(tmp_path)
    ours.put("a", FAULTY)
    path = tmp_path / "gpus" / "a.json"
    os.utime(path, (1, 1))
    first = ours.get("a")
    assert ours.get("a") is first
    os.utime(path, (2, 2))
    assert ours.get("a") is not first
    assert ours.get("a") == first


def test_what_a_program_leaves_out_has_its_default_and_what_is_unknown_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, "a", '{"fault": "lost", "colour": "green"}')
    assert file_shelf(tmp_path).get("a") == FAULTY


@pytest.mark.parametrize("text", ["", "{", '{"fault": 1}', "[]", "\x00"])
def test_a_file_that_makes_no_sense_is_told_by_name_and_the_last_sense_stays(tmp_path: Path, text: str) -> None:
    ours = file_shelf(tmp_path)
    ours.put("a", FAULTY)
    told = changes_of(ours)
    write(tmp_path, "a", text)
    for attempt in (lambda: ours.get("a"), ours.items, lambda: ours.put("a", GpuItem())):
        with pytest.raises(GpuError, match=r"cannot read .*/gpus/a\.json: .*; correct it, or remove it"):
            attempt()
    ours.poll()
    assert ours.readable() == {"a": FAULTY}
    assert told == []
    (tmp_path / "gpus" / "a.json").unlink()
    assert ours.get("a") is None


def test_other_files_are_no_items(tmp_path: Path) -> None:
    ours = file_shelf(tmp_path)
    ours.put("a", FAULTY)
    for name in (".b.json", ".new", "c.txt", "d e.json"):
        (tmp_path / "gpus" / name).write_text("{}")
    assert list(ours.items()) == ["a"]


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".a", "a\n", "x" * 300])
def test_a_name_that_would_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    ours = file_shelf(tmp_path)
    for attempt in (lambda: ours.get(name), lambda: ours.put(name, FAULTY), lambda: ours.remove(name)):
        with pytest.raises(GpuError, match="cannot be the name of a file; choose another"):
            attempt()
    assert not any(path.is_file() for path in tmp_path.rglob("*") if path.name != ".lock")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "gpus").write_text("in the way")
    ours = file_shelf(tmp_path)
    for attempt in (lambda: ours.put("a", FAULTY), ours.items, lambda: ours.get("a")):
        with pytest.raises(GpuError, match=r"cannot (read|list|write) .*/gpus.*; see that it can be"):
            attempt()
    blocked = file_shelf(tmp_path / "gpus")
    with pytest.raises(GpuError, match=r"cannot lock .*; see that it can be written"):
        blocked.put("a", FAULTY)


def test_holding_the_lock_twice_frees_it_at_the_end(tmp_path: Path) -> None:
    ours, theirs = file_shelf(tmp_path), file_shelf(tmp_path)
    with ours.exclusive(), ours.exclusive():
        ours.put("a", FAULTY)
    theirs.put("a", GpuItem())  # would wait forever
    assert ours.get("a") == GpuItem()
