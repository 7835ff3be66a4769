"""Runs a compiled model from Python with nothing but ctypes and numpy.

    compile zoo:lenet5 --dim batch=1 -o lenet5.so
    python3 ctypes_run.py ./lenet5.so lehr_model_lenet5
"""

import ctypes as c
import sys

import numpy as np

DTYPES = {1: np.float64, 2: np.float32, 3: np.float16, 5: np.int8, 6: np.int16, 7: np.int32, 8: np.int64,
          9: np.uint8, 10: np.uint16, 11: np.uint32, 12: np.uint64, 13: np.bool_}  # 4, bf16, has no numpy type


class Spec(c.Structure):
    """struct lehr_tensor_spec"""
    _fields_ = [("name", c.c_char_p), ("dtype", c.c_uint32), ("rank", c.c_uint32),
                ("dims", c.POINTER(c.c_int64)), ("bytes", c.c_uint64)]

    def shape(self) -> tuple[int, ...]:
        return tuple(self.dims[i] for i in range(self.rank))


class Tensor(c.Structure):
    """struct lehr_tensor"""
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_uint32), ("rank", c.c_uint32),
                ("dims", c.POINTER(c.c_int64)), ("bytes", c.c_uint64)]


class Model(c.Structure):
    """struct lehr_model"""


ModelP = c.POINTER(Model)
Model._fields_ = [
    ("magic", c.c_uint64), ("abi_version", c.c_uint32), ("struct_bytes", c.c_uint32), ("name", c.c_char_p),
    ("producer", c.c_char_p), ("target", c.c_char_p), ("n_inputs", c.c_uint32), ("n_outputs", c.c_uint32),
    ("inputs", c.POINTER(Spec)), ("outputs", c.POINTER(Spec)), ("arena_bytes", c.c_uint64),
    ("weights_bytes", c.c_uint64), ("weights", c.c_void_p), ("isa_required", c.c_uint64), ("n_faults", c.c_uint32),
    ("reserved", c.c_uint32), ("faults", c.c_void_p), ("metadata", c.c_char_p), ("metadata_bytes", c.c_uint64),
    ("workspace_bytes", c.CFUNCTYPE(c.c_uint64, ModelP, c.c_uint32)),
    ("open", c.CFUNCTYPE(c.c_int32, ModelP, c.c_void_p, c.c_uint64, c.c_uint32)),
    ("run", c.CFUNCTYPE(c.c_int32, ModelP, c.c_void_p, c.POINTER(Tensor), c.c_uint32, c.POINTER(Tensor), c.c_uint32)),
    ("close", c.CFUNCTYPE(c.c_int32, ModelP, c.c_void_p)),
    ("last_error", c.CFUNCTYPE(c.c_char_p, c.c_void_p)),
    ("status_text", c.CFUNCTYPE(c.c_char_p, c.c_int32)),
    ("main", c.c_void_p),
    ("gpu", c.c_void_p),
    ("run_on", c.CFUNCTYPE(c.c_int32, ModelP, c.c_void_p, c.POINTER(Tensor), c.c_uint32, c.POINTER(Tensor), c.c_uint32,
                           c.c_void_p)),
    ("wait", c.CFUNCTYPE(c.c_int32, ModelP, c.c_void_p)),
    ("runs_on", c.CFUNCTYPE(c.c_char_p, c.c_void_p)),
    ("device", c.CFUNCTYPE(c.c_int32, c.c_void_p)),
]


class Session:
    """A model opened on memory of our own. One run at a time."""

    def __init__(self, path: str, symbol: str, threads: int = 0):
        self.library = c.CDLL(path)
        self.model = c.pointer(Model.in_dll(self.library, symbol))
        m = self.model.contents
        if m.abi_version != 3 or m.struct_bytes != c.sizeof(Model):
            raise RuntimeError(f"{path}: another ABI version")
        self.bytes = m.workspace_bytes(self.model, threads)
        self.memory = np.zeros(self.bytes + 64, np.uint8)  # workspaces are aligned to 64 bytes
        self.workspace = c.c_void_p(-(-self.memory.ctypes.data // 64) * 64)
        self.check(m.open(self.model, self.workspace, self.bytes, threads))

    def check(self, status: int) -> None:
        if status:
            raise RuntimeError(self.model.contents.last_error(self.workspace).decode())

    def bind(self, *inputs: np.ndarray) -> tuple:
        """The arguments of runs on these arrays, which they keep, and of new arrays for the outputs."""
        m = self.model.contents
        specs = [m.outputs[i] for i in range(m.n_outputs)]
        outputs = [np.empty(s.shape(), DTYPES[s.dtype]) for s in specs]
        inputs = [np.ascontiguousarray(x, DTYPES[m.inputs[i].dtype]) for i, x in enumerate(inputs)]
        args_in, args_out = ((Tensor * max(len(xs), 1))() for xs in (inputs, outputs))
        for args, arrays, all_specs in ((args_in, inputs, m.inputs), (args_out, outputs, m.outputs)):
            for i, x in enumerate(arrays):
                dims = (c.c_int64 * max(x.ndim, 1))(*x.shape)
                args[i] = Tensor(x.ctypes.data, all_specs[i].dtype, x.ndim, dims, x.nbytes)
        return args_in, len(inputs), args_out, len(outputs), outputs, inputs

    def run_bound(self, bound: tuple) -> list[np.ndarray]:
        self.check(self.model.contents.run(self.model, self.workspace, *bound[:4]))
        return bound[4]

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        return self.run_bound(self.bind(*inputs))

    def run_on(self, bound: tuple, stream: c.c_void_p) -> None:
        """The same in the order of a stream of the GPU; bound tensors' addresses may be in its memory, and wait() then waits."""
        self.check(self.model.contents.run_on(self.model, self.workspace, *bound[:4], stream))

    def wait(self) -> None:
        self.check(self.model.contents.wait(self.model, self.workspace))

    def runs_on(self) -> str:
        """The CPU, or which GPU."""
        return self.model.contents.runs_on(self.workspace).decode()

    def device(self) -> int:
        """The number of the GPU; negative for the CPU."""
        return self.model.contents.device(self.workspace)

    def close(self) -> None:
        self.check(self.model.contents.close(self.model, self.workspace))


def main() -> None:
    session = Session(sys.argv[1], sys.argv[2])
    m = session.model.contents
    shapes = [m.inputs[i].shape() for i in range(m.n_inputs)]
    inputs = [(np.arange(np.prod(s), dtype=np.float32) % 29 / np.float32(28) - np.float32(0.5)).reshape(s) for s in shapes]
    for output in session.run(*inputs):
        for value in output.ravel():
            print(f"{value:.6f}")
    try:
        session.run(*(x[..., :1] for x in inputs))
        raise SystemExit("a wrong shape was accepted")
    except RuntimeError as error:
        print(f"refused: {error}", file=sys.stderr)
    session.close()


if __name__ == "__main__":
    main()
