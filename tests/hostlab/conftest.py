"""The virtual host, booted once and prepared as an operator would: a pool, Docker with CDI, images; then MedForge."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fixtures.nvml.script import ScriptedGpu, scripted_gpu
from tests.hostlab.host import GPUS, PASSWORD, POOL, PYTHON, SOURCE, WHEELS, Host

INSTALL = f"{SOURCE}/deploy/install --no-packages --no-images --wheels {WHEELS}"
NVML_SCRIPT = "/opt/lab/gpus.txt"
# GPUs are the scripted library's, read by the real adapter, and device nodes of our own, given by Docker's CDI.
NVML = f"LD_LIBRARY_PATH=/opt/lab/nvml MEDFORGE_NVML_SCRIPT={NVML_SCRIPT}"
DAEMON_DROP_IN = f"[Service]\nEnvironment={NVML}\n"


@dataclass(frozen=True)
class Installed:
    """MedForge on the virtual host, and what its installation said."""

    host: Host
    told: str


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """On a slow machine the run ends in time all the same, and says what it has left out."""
    import hostlab

    if reason := hostlab.time_is_up():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def bare() -> Iterator[Host]:
    """The machine, without MedForge; one that was kept (`ops/hostlab/run --keep`) is used as it is."""
    import hostlab
    import hostlab_machine

    kept = hostlab_machine.running()
    if kept is not None:
        yield Host(kept)
        return
    if reason := hostlab.lack_of_time():
        pytest.skip(reason)
    if shutil.which("qemu-system-x86_64") is None:
        pytest.fail("QEMU is missing: run ops/hostlab/run, which installs it")
    with hostlab.machine() as machine:
        yield Host(machine)


@pytest.fixture(scope="session")
def prepared(bare: Host) -> Host:
    """With what MedForge stands on."""
    if not bare.ask(f"zpool list {POOL}").stdout:
        bare.run(f"zpool create -m /{POOL} {POOL} /dev/disk/by-id/virtio-pool")
    if "/etc/cdi" not in bare.run("docker info --format '{{json .CDISpecDirs}}'"):
        bare.put(json.dumps({"features": {"cdi": True}}), "/etc/docker/daemon.json")
        bare.run("systemctl restart docker")
    if not bare.run("docker image ls --quiet medforge-caddy:local").strip():
        bare.run("docker load --quiet --input /media/lab/images/caddy.tar", seconds=600)
    gpus = [scripted_gpu(number) for number in range(GPUS)]
    bare.put(cdi_specification(gpus), "/etc/cdi/nvidia.json")
    bare.run(
        f"cd {SOURCE} && ln -sfn $({PYTHON} -m tests.fixtures.nvml.build /opt/lab/nvml-build) /opt/lab/nvml",
        seconds=300,
    )
    bare.put("\n".join(["driver 570.86.15", *(line for gpu in gpus for line in gpu.lines())]) + "\n", NVML_SCRIPT)
    bare.put(DAEMON_DROP_IN, "/etc/systemd/system/medforged.service.d/lab.conf")
    return bare


def cdi_specification(gpus: list[ScriptedGpu]) -> str:
    """One device node for each GPU, which exists on every host, and a variable that tells which one was given."""
    devices = [
        {
            "name": gpu.uuid,
            "containerEdits": {
                "deviceNodes": [{"path": f"/dev/nvidia{number}", "hostPath": "/dev/null"}],
                "env": [f"LAB_GPU={gpu.uuid}"],
            },
        }
        for number, gpu in enumerate(gpus)
    ]
    return json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices, "containerEdits": {}})


@pytest.fixture(scope="session")
def installed(prepared: Host) -> Installed:
    """With MedForge, by `deploy/install`, and the small pack of the tests as its default."""
    host = prepared
    if os.environ.get("MEDFORGE_HOSTLAB_AS_IS"):
        # For work on the tests themselves, on a machine that was kept: what is installed is not renewed.
        host.until_well()
        return Installed(host, "")
    told = host.ask(f"{INSTALL} --pool {POOL} 2>&1", seconds=900)
    assert told.code == 0, told.stdout
    pack = host.run(
        f"cd {SOURCE} && {PYTHON} -c 'from tests.host import tiny_image; print(tiny_image.ensure().reference)'"
    ).strip()
    host.run(f"sed -i 's|^default_image = .*|default_image = \"{pack}\"|' /etc/medforge/medforged.toml")
    # As small as the machine.
    limits = "memory_bytes = 268435456\\nshm_bytes = 16777216\\ncpus = 1.0"
    host.run(
        "grep -q '^memory_bytes' /etc/medforge/medforged.toml || "
        f"sed -i 's|^\\[containers\\]|[containers]\\n{limits}|' /etc/medforge/medforged.toml"
    )
    host.run("sed -i 's|^#quota_bytes.*|quota_bytes = 67108864|' /etc/medforge/medforged.toml")
    host.run("medforged --check")
    host.run("systemctl restart medforged && systemctl start medforge-caddy")
    host.until_well()
    return Installed(host, told.stdout)


@pytest.fixture(scope="session")
def host(installed: Installed) -> Host:
    return installed.host


@pytest.fixture(scope="session")
def alice(host: Host) -> str:
    """A person's cookie."""
    return host.sign_up("alice@example.org")


@pytest.fixture(scope="session")
def bob(host: Host) -> str:
    return host.sign_up("bob@example.org")


@pytest.fixture(scope="session")
def admin(host: Host) -> str:
    """An administrator's cookie."""
    host.ask(
        "medforgectl users create root@example.org --admin --password-stdin",
        stdin=f"{PASSWORD}\n".encode(),
    )
    return host.sign_up("root@example.org")


@pytest.fixture
def session(host: Host, alice: str) -> Iterator[dict[str, Any]]:
    """A running session of alice's."""
    made = host.start_session(alice)
    yield made
    if host.session(made, alice)["status"] not in ("stopped", "error"):
        host.stop_session(made, alice)
