"""Owns NVML: the GPUs of this host, as the NVIDIA driver reports them through the `pynvml` binding."""

from __future__ import annotations

from medforged.adapters.nvml.detect import Detection, detect
from medforged.adapters.nvml.gpus import NvmlGpuDriver

__all__ = ["Detection", "NvmlGpuDriver", "detect"]
