"""How far lehr and ONNX Runtime are from f64 on the nine networks with random weights.

    python="$(tests/venv.sh requirements-peers.txt --no-deps)"
    $python tests/peers/exact.py --lehr target/release/lehr [--networks resnet50,vgg19]

The networks' weights and inputs become f64, and onnx's own reference implementation, which computes in their type, runs them (but
LRN and batch normalisation, which are written here: onnx 1.23's LRN covers as many channels as there are images, and its batch
normalisation of old opsets gives other values than every runtime). An error is max |ours - exact| / max |exact| of the output. Prints a table; the exit code is 1 when an error of lehr's is above 5e-6.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from bench_page import table
from convert import with_explicit_axes
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from peers_common import add_common_options, cached_network, call_lehr, read_outputs

LIMIT = 5e-6
FLAGS = {"lehr": ["-O2"], "strict": ["-O2", "--numerics", "strict"]}


class LRN(OpRun):
    op_domain = ""

    def _run(self, x: np.ndarray, alpha: float, beta: float, bias: float, size: int) -> tuple[np.ndarray]:
        padded = np.pad(x * x, [(0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)])
        sums = sum(padded[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * sums) ** beta,)


class BatchNormalization(OpRun):
    op_domain = ""

    def _run(
        self, x: np.ndarray, *statistics: np.ndarray, epsilon: float | None = None, **_: object
    ) -> tuple[np.ndarray]:
        scale, bias, mean, variance = (values[:, None, None] for values in statistics)
        return ((x - mean) / np.sqrt(variance + (1e-5 if epsilon is None else epsilon)) * scale + bias,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    options = parser.parse_args()
    lines, worst = [["network", *FLAGS, "ONNX Runtime"]], 0.0
    for name in options.networks:
        folder = cached_network(name)
        exact = _exact(folder)
        ours = [relative(_lehr(options.lehr, folder, flags), exact) for flags in FLAGS.values()]
        worst = max(worst, *ours)
        lines.append([name, *(f"{error:.1e}" for error in (*ours, relative(_onnxruntime(folder), exact)))])
    print("\n".join(table(lines)))
    return 1 if worst > LIMIT else 0


def relative(answer: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(answer.astype(np.float64) - exact).max() / np.abs(exact).max())


def _exact(folder: Path) -> np.ndarray:
    model = with_explicit_axes(folder / "model.onnx")
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    (result,) = ReferenceEvaluator(model, new_ops=[LRN, BatchNormalization]).run(None, {_input(model): np.load(folder / "input_0.npy").astype(np.float64)})
    if result.dtype != np.float64:
        raise RuntimeError(f"{folder.name}: the reference computed in {result.dtype}")
    return result


def _input(model: onnx.ModelProto) -> str:
    """Old models list their weights as inputs, too."""
    weights = {weight.name for weight in model.graph.initializer}
    (name,) = (value.name for value in model.graph.input if value.name not in weights)
    return name


def _lehr(lehr: Path, folder: Path, flags: list[str]) -> np.ndarray:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    (output,) = (value.name for value in model.graph.output)
    with tempfile.TemporaryDirectory(prefix="lehr-exact-") as scratch:
        given = f"{_input(model)}={folder / 'input_0.npy'}"
        call_lehr(lehr, "run", folder / "model.onnx", *flags, "--input", given, "--output-dir", scratch)
        return read_outputs(Path(scratch), [output])[output]


def _onnxruntime(folder: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return session.run(None, {name: np.load(folder / "input_0.npy")})[0]


if __name__ == "__main__":
    sys.exit(main())
