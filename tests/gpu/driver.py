"""A model from lehr's PTX on a GPU, by NVIDIA's driver alone (ctypes): what a host does with a launch plan.

Everything runs in one stream that waits for no other, copies included: so nothing depends on what the default stream does.
"""

from __future__ import annotations

import ctypes as c
import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

DTYPES = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "|i1"}
DTYPES |= {"u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "|u1", "bool": "|b1", "bf16": "<u2"}
JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES = 5, 6
CAPTURE_THREAD_LOCAL = 1
NON_BLOCKING = 1
MAJOR, MINOR = 75, 76


class Error(RuntimeError):
    """The driver's, with its name."""


class Scope:
    """What is closed at the end of a `with`."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except Error:
            # A fault in a kernel makes every later call fail: the first error is the one to see.
            if error is None:
                raise


class Gpu(Scope):
    """The first device, with a stream of its own."""

    def __init__(self) -> None:
        try:
            self.cuda = c.CDLL("libcuda.so.1")
        except OSError as error:
            raise Error(f"there is no NVIDIA driver: {error}") from error
        self("cuInit", 0)
        device, context, version = c.c_int(), c.c_void_p(), c.c_int()
        self("cuDriverGetVersion", c.byref(version))
        self.driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
        self("cuDeviceGet", c.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", c.byref(context), device)
        self.device = device
        self("cuCtxSetCurrent", context)
        name = c.create_string_buffer(256)
        self("cuDeviceGetName", name, len(name), device)
        self.name = name.value.decode()
        part = [c.c_int(), c.c_int()]
        for value, attribute in zip(part, (MAJOR, MINOR), strict=True):
            self("cuDeviceGetAttribute", c.byref(value), attribute, device)
        self.capability = 10 * part[0].value + part[1].value
        self.stream = c.c_void_p()
        self("cuStreamCreate", c.byref(self.stream), NON_BLOCKING)
        # Copies from and to these may still be under way.
        self.in_use: list[np.ndarray] = []

    def __call__(self, name: str, *args: object) -> None:
        status = getattr(self.cuda, name)(*args)
        if status:
            text = c.c_char_p()
            self.cuda.cuGetErrorName(status, c.byref(text))
            raise Error(f"{name}: {(text.value or b'?').decode()} ({status})")

    def alloc(self, size: int) -> c.c_uint64:
        address = c.c_uint64()
        self("cuMemAlloc_v2", c.byref(address), c.c_size_t(max(size, 1)))
        return address

    def free_all(self, addresses: list[c.c_uint64]) -> None:
        while addresses:
            self("cuMemFree_v2", addresses.pop())

    def upload(self, address: c.c_uint64, data: np.ndarray) -> None:
        """In the stream's order; the array is kept until `synchronize`."""
        data = np.ascontiguousarray(data)
        if data.nbytes:
            self.in_use.append(data)
            self("cuMemcpyHtoDAsync_v2", address, c.c_void_p(data.ctypes.data), c.c_size_t(data.nbytes), self.stream)

    def download(self, data: np.ndarray, address: c.c_uint64) -> None:
        """In the stream's order: the array has the values after `synchronize`."""
        if data.nbytes:
            self.in_use.append(data)
            self("cuMemcpyDtoHAsync_v2", c.c_void_p(data.ctypes.data), address, c.c_size_t(data.nbytes), self.stream)

    def synchronize(self) -> None:
        self("cuStreamSynchronize", self.stream)
        self.in_use.clear()

    def close(self) -> None:
        self("cuStreamDestroy_v2", self.stream)
        self("cuDevicePrimaryCtxRelease_v2", self.device)


class Model(Scope):
    """PTX, plan and weights on the device; `graph` replays all launches of a run as one. `close` gives all of it back."""

    def __init__(self, gpu: Gpu, ptx: Path) -> None:
        self.gpu = gpu
        self.plan = json.loads(ptx.with_suffix(".json").read_text())
        wanted = int(self.plan["target"].removeprefix("sm_"))
        if gpu.capability < wanted:
            raise Error(f"{gpu.name} is sm_{gpu.capability}: the model is for sm_{wanted}")
        self.module, self.graph, self.captured = c.c_void_p(), c.c_void_p(), c.c_void_p()
        self.allocated: list[c.c_uint64] = []
        try:
            self.functions = self._load(ptx.read_bytes())
            self.memory: dict[str, list[c.c_uint64]] = {
                "weights": [self._alloc(self.plan["weights_bytes"])],
                "arena": [self._alloc(self.plan["arena_bytes"])],
                "input": [self._alloc(_bytes(i)) for i in self.plan["inputs"]],
                "output": [self._alloc(_bytes(o)) for o in self.plan["outputs"]],
            }
            self.fault = self._alloc(4)
            gpu.upload(self.fault, np.zeros(1, np.uint32))
            gpu.upload(self.memory["weights"][0], np.fromfile(ptx.with_suffix(".weights"), np.uint8))
            gpu.synchronize()
        except BaseException:
            with suppress(Error):
                self.close()
            raise
        self.addresses = [self._address(b) for b in self.plan["buffers"]]

    def _alloc(self, size: int) -> c.c_uint64:
        self.allocated.append(self.gpu.alloc(size))
        return self.allocated[-1]

    def _load(self, text: bytes) -> list[c.c_void_p]:
        log = c.create_string_buffer(1 << 16)
        options = (c.c_int * 2)(JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES)
        values = (c.c_void_p * 2)(c.cast(log, c.c_void_p), len(log))
        try:
            self.gpu("cuModuleLoadDataEx", c.byref(self.module), c.c_char_p(text), 2, options, values)
        except Error as error:
            version = self.plan["ptx_version"]
            raise Error(f"{error}; PTX {version} may be too new for the driver. {log.value.decode()}") from error
        functions = []
        for kernel in self.plan["kernels"]:
            function = c.c_void_p()
            self.gpu("cuModuleGetFunction", c.byref(function), self.module, kernel["name"].encode())
            functions.append(function)
        return functions

    def _address(self, buffer: dict) -> int:
        memory, at = buffer["memory"], buffer["at"]
        if memory in ("input", "output"):
            return self.memory[memory][at].value
        return self.memory[memory][0].value + at

    def launch(self) -> None:
        for step in self.plan["steps"]:
            kernel = self.plan["kernels"][step["kernel"]]
            args: list[object] = [c.c_uint64(self.addresses[b]) for b in step["buffers"]]
            if kernel["takes_fault"]:
                args += [c.c_uint64(self.fault.value), c.c_uint32(step["first_fault"])]
            pointers = (c.c_void_p * len(args))(*(c.cast(c.byref(a), c.c_void_p) for a in args))
            x, y, z = kernel["grid"]
            function = self.functions[step["kernel"]]
            self.gpu("cuLaunchKernel", function, x, y, z, kernel["threads"], 1, 1, 0, self.gpu.stream, pointers, None)

    def capture(self) -> None:
        """After this, `replay` runs what `launch` does."""
        self.gpu("cuStreamBeginCapture_v2", self.gpu.stream, CAPTURE_THREAD_LOCAL)
        self.launch()
        self.gpu("cuStreamEndCapture", self.gpu.stream, c.byref(self.captured))
        self.gpu("cuGraphInstantiateWithFlags", c.byref(self.graph), self.captured, c.c_ulonglong(0))

    def replay(self) -> None:
        self.gpu("cuGraphLaunch", self.graph, self.gpu.stream)

    def run(self, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
        for address, value in zip(self.memory["input"], inputs, strict=True):
            self.gpu.upload(address, value)
        for address, spec in zip(self.memory["output"], self.plan["outputs"], strict=True):
            # What no kernel writes must not look right.
            self.gpu.upload(address, np.full(_bytes(spec), 0x5A, np.uint8))
        self.replay() if self.graph else self.launch()
        word = np.zeros(1, np.uint32)
        self.gpu.download(word, self.fault)
        results = {o["name"]: np.empty(o["dims"], DTYPES[o["dtype"]]) for o in self.plan["outputs"]}
        for address, data in zip(self.memory["output"], results.values(), strict=True):
            self.gpu.download(data, address)
        self.gpu.synchronize()
        if word[0]:
            self.gpu.upload(self.fault, np.zeros(1, np.uint32))
            raise Error(self.plan["faults"][word[0] - 1])
        return results

    def close(self) -> None:
        self.gpu.synchronize()
        if self.graph:
            self.gpu("cuGraphExecDestroy", self.graph)
        if self.captured:
            self.gpu("cuGraphDestroy", self.captured)
        if self.module:
            self.gpu("cuModuleUnload", self.module)
        self.module, self.graph, self.captured = c.c_void_p(), c.c_void_p(), c.c_void_p()
        self.gpu.free_all(self.allocated)


def _bytes(spec: dict) -> int:
    return int(np.prod(spec["dims"], dtype=np.int64)) * np.dtype(DTYPES[spec["dtype"]]).itemsize
