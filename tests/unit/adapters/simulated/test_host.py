"""The simulated host: what outlives a process, what processes see of each other, and waiting for changes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medforged.adapters.simulated.host import SimulatedHost, Watch
from medforged.adapters.simulated.items import ContainerItem, GpuItem

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[4]
# Makes containers until it is killed, and says which of them it was told that it made.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.host import SimulatedHost
from tests.fakes.containers import container_spec

async def main():
    runtime = SimulatedRuntime(host=SimulatedHost(Path(sys.argv[1])))
    for number in range(1_000_000):
        identity = await runtime.create(container_spec(f"{number:08d}"))
        print(f"mf-session-{number:08d}", identity, flush=True)

asyncio.run(main())
"""
# Writes so many lines to the output of one container, each of which reads and changes its file.
SAY = """
import sys
from pathlib import Path
from medforged.adapters.simulated.containers import SimulatedRuntime
from medforged.adapters.simulated.host import SimulatedHost

runtime = SimulatedRuntime(host=SimulatedHost(Path(sys.argv[1])))
for number in range(int(sys.argv[2])):
    runtime.say("one", f"{number}\\n")
"""


def test_without_a_folder_nothing_is_written_and_hosts_are_apart() -> None:
    one, other = SimulatedHost(), SimulatedHost()
    one.gpus.put("a", GpuItem())
    assert other.gpus.items() == {}


def test_nothing_is_made_in_a_folder_before_something_exists(tmp_path: Path) -> None:
    host = SimulatedHost(tmp_path / "host")
    host.containers.poll()
    assert host.gpus.items() == {}
    assert not (tmp_path / "host").exists()
    host.gpus.put("a", GpuItem())
    assert sorted(path.name for path in (tmp_path / "host").iterdir()) == [".lock", "gpus"]


def test_what_a_killed_process_was_told_is_there_and_whole(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    made = dict(line.decode().split() for line in told if line.endswith(b"\n"))
    found = SimulatedHost(tmp_path).containers.items()
    assert len(made) >= 100
    assert {name: item.id for name, item in found.items() if name in made} == made
    assert len(found) - len(made) in (0, 1)
    leftovers = [path.name for path in (tmp_path / "containers").iterdir() if path.name.startswith(".")]
    assert leftovers in ([], [".new"])
    SimulatedHost(tmp_path).containers.remove("mf-session-00000000")  # the lock went with its holder


def test_no_change_of_two_processes_is_lost(tmp_path: Path) -> None:
    SimulatedHost(tmp_path).containers.put("one", ContainerItem(name="one", id="1"))
    argv = [sys.executable, "-c", SAY, str(tmp_path), "300"]
    processes = [subprocess.Popen(argv, cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    item = SimulatedHost(tmp_path).containers.get("one")
    assert item is not None
    assert sorted(item.output) == sorted(f"{number}\n" for number in range(300) for _ in range(3))


async def test_a_wait_ends_when_something_changes_and_at_its_timeout(tmp_path: Path) -> None:
    for host in (SimulatedHost(), SimulatedHost(tmp_path)):
        watch = Watch(host.gpus, host.driver)
        assert not await watch.wait(0)
        assert not await watch.wait(0.01)
        host.gpus.put("a", GpuItem())
        host.gpus.put("b", GpuItem())
        assert await watch.wait(0)
        assert not await watch.wait(0)
        waiting = asyncio.create_task(watch.wait(60))
        await asyncio.sleep(0)
        host.gpus.remove("a")
        assert await waiting
        host.containers.poll()
        watch.close()
        host.gpus.remove("b")
        assert not await watch.wait(0)


async def test_a_wait_ends_when_another_process_has_changed_something(tmp_path: Path) -> None:
    watch = Watch(SimulatedHost(tmp_path).gpus)
    waiting = asyncio.create_task(watch.wait(60))
    await asyncio.sleep(0)
    (tmp_path / "gpus").mkdir()
    (tmp_path / "gpus" / ".mine").write_text(json.dumps({"fault": "lost"}))
    (tmp_path / "gpus" / ".mine").replace(tmp_path / "gpus" / "GPU-1.json")
    assert await waiting
    (tmp_path / "gpus" / "GPU-1.json").unlink()
    assert await watch.wait(60)


async def test_a_notified_wait_ends() -> None:
    watch = Watch(SimulatedHost().gpus)
    watch.notify()
    assert await watch.wait(0)
