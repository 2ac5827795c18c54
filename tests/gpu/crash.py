"""Owns a program that does what any tenant can: it writes to an address it does not have, for which the GPU reports an Xid.

It calls the CUDA driver itself, as load.py does. It prints "no compiler" where the driver comes without its compiler
for PTX, else the code with which CUDA ended it.
"""

from __future__ import annotations

import ctypes

PTX = b"""
.version 6.0
.target sm_52
.address_size 64
.visible .entry crash()
{
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 16;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
"""
JIT_COMPILER_NOT_FOUND = 221


def main() -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    module, kernel = ctypes.c_void_p(), ctypes.c_void_p()

    def must(code: int) -> None:
        if code != 0:
            raise SystemExit(f"CUDA says {code}")

    must(cuda.cuInit(0))
    must(cuda.cuDeviceGet(ctypes.byref(device), 0))
    must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    must(cuda.cuCtxSetCurrent(context))
    loaded = cuda.cuModuleLoadData(ctypes.byref(module), PTX)
    if loaded == JIT_COMPILER_NOT_FOUND:
        print("no compiler")
        return
    must(loaded)
    must(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"crash"))
    must(cuda.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None))
    print(cuda.cuCtxSynchronize())


if __name__ == "__main__":
    main()
