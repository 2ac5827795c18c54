"""Owns a program that waits for the next event of a GPU through the real adapter, and prints what a look then finds.

It prints "ready" when it waits. The argument is for how many seconds it does.
"""

from __future__ import annotations

import asyncio
import json
import sys

from structlog.testing import capture_logs

from medforged.adapters.nvml import NvmlGpuDriver


async def watch(seconds: float) -> dict[str, object]:
    driver = NvmlGpuDriver()
    await driver.inventory()
    while await driver.changed(1):
        await driver.inventory()
    print("ready", flush=True)
    told = await driver.changed(seconds)
    with capture_logs() as logs:
        inventory = await driver.inventory()
    await driver.close()
    return {
        "told": told,
        "xids": [[log["gpu_uuid"], log["xid"]] for log in logs if log["event"] == "gpu.xid"],
        "faults": [device.fault for device in inventory.devices],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(float(sys.argv[1])))), flush=True)
