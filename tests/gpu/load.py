"""Owns a program that holds a CUDA context and some memory on a GPU until its standard input ends.

It calls the CUDA driver itself, so the lane needs nothing beyond the NVIDIA driver. Arguments: device, bytes, and `busy`
for a program that fills the memory over and over.
"""

from __future__ import annotations

import ctypes
import select
import sys

# Filled this often between two looks at standard input: some hundredths of a second.
_ROUNDS = 64


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
    size = ctypes.c_size_t(int(sys.argv[2]))
    must(cuda.cuMemAlloc_v2(ctypes.byref(memory), size))
    print("ready", flush=True)
    while "busy" in sys.argv[3:] and not select.select([sys.stdin], [], [], 0)[0]:
        for value in range(_ROUNDS):
            must(cuda.cuMemsetD8_v2(memory, ctypes.c_ubyte(value), size))
        must(cuda.cuCtxSynchronize())
    sys.stdin.read()


if __name__ == "__main__":
    main()
