"""A model from lehr's PTX on a GPU, by NVIDIA's driver alone (ctypes): what a host does with a launch plan."""

from __future__ import annotations

import ctypes as c
import json
from pathlib import Path

import numpy as np

DTYPES = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "|i1"}
DTYPES |= {"u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "|u1", "bool": "|b1", "bf16": "<u2"}
JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES = 5, 6
CAPTURE_THREAD_LOCAL = 1
MAJOR, MINOR = 75, 76


class Error(RuntimeError):
    """The driver's, with its name."""


class Gpu:
    """The first device, with a stream of its own."""

    def __init__(self) -> None:
        try:
            self.cuda = c.CDLL("libcuda.so.1")
        except OSError as error:
            raise Error(f"there is no NVIDIA driver: {error}") from error
        self("cuInit", 0)
        device, context = c.c_int(), c.c_void_p()
        self("cuDeviceGet", c.byref(device), 0)
        self("cuDevicePrimaryCtxRetain", c.byref(context), device)
        self("cuCtxSetCurrent", context)
        name = c.create_string_buffer(256)
        self("cuDeviceGetName", name, len(name), device)
        self.name = name.value.decode()
        part = [c.c_int(), c.c_int()]
        for value, attribute in zip(part, (MAJOR, MINOR), strict=True):
            self("cuDeviceGetAttribute", c.byref(value), attribute, device)
        self.capability = 10 * part[0].value + part[1].value
        self.stream = c.c_void_p()
        self("cuStreamCreate", c.byref(self.stream), 1)

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

    def synchronize(self) -> None:
        self("cuStreamSynchronize", self.stream)

    def event(self) -> c.c_void_p:
        event = c.c_void_p()
        self("cuEventCreate", c.byref(event), 0)
        return event

    def record(self, event: c.c_void_p) -> None:
        self("cuEventRecord", event, self.stream)

    def milliseconds(self, start: c.c_void_p, end: c.c_void_p) -> float:
        self("cuEventSynchronize", end)
        time = c.c_float()
        self("cuEventElapsedTime", c.byref(time), start, end)
        return time.value


class Model:
    """PTX, plan and weights on the device; `graph` replays all launches of a run as one."""

    def __init__(self, gpu: Gpu, ptx: Path) -> None:
        self.gpu = gpu
        self.plan = json.loads(ptx.with_suffix(".json").read_text())
        wanted = int(self.plan["target"].removeprefix("sm_"))
        if gpu.capability < wanted:
            raise Error(f"{gpu.name} is sm_{gpu.capability}: the model is for sm_{wanted}")
        self.functions = self._load(ptx.read_bytes())
        self.memory: dict[str, list[c.c_uint64]] = {
            "weights": [gpu.alloc(self.plan["weights_bytes"])],
            "arena": [gpu.alloc(self.plan["arena_bytes"])],
            "input": [gpu.alloc(_bytes(i)) for i in self.plan["inputs"]],
            "output": [gpu.alloc(_bytes(o)) for o in self.plan["outputs"]],
        }
        self.fault = gpu.alloc(4)
        gpu("cuMemsetD32_v2", self.fault, 0, 1)
        weights = np.fromfile(ptx.with_suffix(".weights"), np.uint8)
        if weights.size:
            gpu("cuMemcpyHtoD_v2", self.memory["weights"][0], _pointer(weights), c.c_size_t(weights.nbytes))
        self.addresses = [self._address(b) for b in self.plan["buffers"]]
        self.graph = None

    def _load(self, text: bytes) -> list[c.c_void_p]:
        log = c.create_string_buffer(1 << 16)
        options = (c.c_int * 2)(JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES)
        values = (c.c_void_p * 2)(c.cast(log, c.c_void_p), len(log))
        module = c.c_void_p()
        try:
            self.gpu("cuModuleLoadDataEx", c.byref(module), c.c_char_p(text), 2, options, values)
        except Error as error:
            version = self.plan["ptx_version"]
            raise Error(f"{error}; PTX {version} may be too new for the driver. {log.value.decode()}") from error
        functions = []
        for kernel in self.plan["kernels"]:
            function = c.c_void_p()
            self.gpu("cuModuleGetFunction", c.byref(function), module, kernel["name"].encode())
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
        graph, ready = c.c_void_p(), c.c_void_p()
        self.gpu("cuStreamBeginCapture_v2", self.gpu.stream, CAPTURE_THREAD_LOCAL)
        self.launch()
        self.gpu("cuStreamEndCapture", self.gpu.stream, c.byref(graph))
        self.gpu("cuGraphInstantiateWithFlags", c.byref(ready), graph, c.c_ulonglong(0))
        self.graph = ready

    def replay(self) -> None:
        self.gpu("cuGraphLaunch", self.graph, self.gpu.stream)

    def run(self, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
        for address, value in zip(self.memory["input"], inputs, strict=True):
            data = np.ascontiguousarray(value)
            self.gpu("cuMemcpyHtoD_v2", address, _pointer(data), c.c_size_t(data.nbytes))
        for address, spec in zip(self.memory["output"], self.plan["outputs"], strict=True):
            # What no kernel writes must not look right.
            self.gpu("cuMemsetD8_v2", address, 0x5A, c.c_size_t(_bytes(spec)))
        self.replay() if self.graph else self.launch()
        self.gpu.synchronize()
        word = np.zeros(1, np.uint32)
        self.gpu("cuMemcpyDtoH_v2", _pointer(word), self.fault, c.c_size_t(4))
        if word[0]:
            self.gpu("cuMemsetD32_v2", self.fault, 0, 1)
            raise Error(self.plan["faults"][word[0] - 1])
        results = {}
        for address, spec in zip(self.memory["output"], self.plan["outputs"], strict=True):
            data = np.empty(spec["dims"], DTYPES[spec["dtype"]])
            self.gpu("cuMemcpyDtoH_v2", _pointer(data), address, c.c_size_t(data.nbytes))
            results[spec["name"]] = data
        return results


def _bytes(spec: dict) -> int:
    return int(np.prod(spec["dims"], dtype=np.int64)) * np.dtype(DTYPES[spec["dtype"]]).itemsize


def _pointer(array: np.ndarray) -> c.c_void_p:
    return c.c_void_p(array.ctypes.data)
