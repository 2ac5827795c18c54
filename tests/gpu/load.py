"""Owns a program that holds a CUDA context and some memory on a GPU until its standard input ends.

It calls the CUDA driver itself, so the lane needs nothing beyond the NVIDIA driver. Arguments: device, bytes.
"""

from __future__ import annotations

import ctypes
import sys


def main() -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()

    def must(code: int) -> None:
        if code != 0:
            raise SystemExit(f"CUDA says {code}")

    must(cuda.cuInit(0))
    must(cuda.cuDeviceGet(ctypes.byref(device), int(sys.argv[1])))
    must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    must(cuda.cuCtxSetCurrent(context))
    must(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(int(sys.argv[2]))))
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
