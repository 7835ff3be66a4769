"""Compares lehr with ONNX Runtime on the nine networks with random weights.

    agree.py --lehr target/release/lehr                    outputs at -O2, by JIT and as .so, with 1 and 2 threads
    agree.py --lehr target/release/lehr --intermediates    every intermediate tensor at -O0, by JIT and as .so

An error is max |ours - theirs| / max |theirs| of one tensor. A network agrees when no error is above 1e-5 and one and two
threads give the same bits. Prints a line per network; the exit code is 1 when one does not agree.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from networks import random_input
from onnx import ModelProto
from peers_common import LehrError, add_common_options, cached_network, call_lehr, compile_so, output_file, read_outputs

TOLERANCE = 1e-5
THREADS = (1, 2)

Tensors = dict[str, np.ndarray]


@dataclass
class Verdict:
    """What was found on one network."""

    name: str
    errors: dict[str, float] = field(default_factory=dict)  # "jit" or "so" -> worst error
    worst_error: float = -1.0
    worst_tensor: str = "-"
    tensors: int = 0
    same_bits: bool = True
    seconds: float = 0.0
    problem: str = ""

    def agrees(self) -> bool:
        return not self.problem and self.same_bits and self.worst_error <= TOLERANCE

    def add(self, kind: str, reference: Tensors, ours: Tensors) -> None:
        for tensor, expected in reference.items():
            error = relative_error(expected, ours[tensor])
            self.errors[kind] = max(self.errors.get(kind, 0.0), error)
            if error > self.worst_error:
                self.worst_error, self.worst_tensor = error, tensor


def relative_error(reference: np.ndarray, ours: np.ndarray) -> float:
    """max |ours - reference| / max |reference|; infinite for another shape or type, or where just one is not finite."""
    if reference.shape != ours.shape or reference.dtype != ours.dtype:
        return float("inf")
    if reference.dtype.kind not in "f":
        return 0.0 if np.array_equal(reference, ours) else float("inf")
    if not (np.isfinite(reference).all() and np.isfinite(ours).all()):
        return 0.0 if np.array_equal(reference, ours, equal_nan=True) else float("inf")
    if reference.size == 0:
        return 0.0
    difference = float(np.abs(ours.astype(np.float64) - reference).max())
    scale = float(np.abs(reference).max())
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))


def expose_intermediates(model: ModelProto) -> ModelProto:
    """A copy in which every tensor that some node reads from another is also an output of the graph."""
    exposed = onnx.shape_inference.infer_shapes(model)
    graph = exposed.graph
    known = {value.name: value for value in graph.value_info}
    outputs = {value.name for value in graph.output}
    read = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for name in node.output:
            if name in read and name not in outputs:
                graph.output.append(known[name])
    files = [output_file(value.name) for value in graph.output]
    if len(set(files)) != len(files):
        raise ValueError("two tensors have names that differ by / and _ only")
    return exposed


def run_onnxruntime(model: Path, image: np.ndarray, optimise: bool) -> Tensors:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image})))


def compare(lehr: Path, name: str, intermediates: bool, inputs: int) -> Verdict:
    verdict = Verdict(name)
    start = time.monotonic()
    folder = cached_network(name)
    with tempfile.TemporaryDirectory(prefix="lehr-agree-") as scratch:
        try:
            _compare_in(Path(scratch), lehr, folder, intermediates, inputs, verdict)
        except LehrError as error:
            verdict.problem = str(error)
    verdict.seconds = time.monotonic() - start
    return verdict


def _compare_in(scratch: Path, lehr: Path, folder: Path, intermediates: bool, inputs: int, verdict: Verdict) -> None:
    model = folder / "model.onnx"
    proto = onnx.load(model)
    level = "-O2"
    if intermediates:
        model, level = scratch / "exposed.onnx", "-O0"
        onnx.save(expose_intermediates(proto), model)
    image_name = proto.graph.input[0].name
    so = scratch / "model.so"
    compile_so(lehr, model, so, level)
    for number in range(inputs):
        image = np.load(folder / "input_0.npy") if number == 0 else random_input(proto, number)
        np.save(scratch / "input.npy", image)
        reference = run_onnxruntime(model, image, optimise=not intermediates)
        verdict.tensors = len(reference)
        for kind, what in (("jit", [model, level]), ("so", [so])):
            runs = []
            for threads in THREADS:
                out = scratch / f"{kind}-{threads}"
                source = f"{image_name}={scratch / 'input.npy'}"
                call_lehr(lehr, "run", *what, "--input", source, "--output-dir", out, "--threads", threads)
                runs.append(read_outputs(out, list(reference)))
                verdict.add(kind, reference, runs[-1])
            verdict.same_bits &= all(_same_bits(runs[0][tensor], runs[1][tensor]) for tensor in reference)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--intermediates", action="store_true", help="compare every intermediate tensor, at -O0")
    parser.add_argument("--inputs", type=int, default=1, help="how many random inputs (default: 1)")
    options = parser.parse_args()
    print(f"{'network':<13} {'tensors':>7} {'jit':>8} {'so':>8}  1=2 threads  {'s':>5}  verdict  worst tensor")
    disagree = 0
    for name in options.networks:
        verdict = compare(options.lehr, name, options.intermediates, options.inputs)
        disagree += not verdict.agrees()
        print(_line(verdict), flush=True)
    print(f"{len(options.networks) - disagree} agree, {disagree} do not (tolerance {TOLERANCE:g})")
    return 1 if disagree else 0


def _line(verdict: Verdict) -> str:
    errors = [f"{verdict.errors[kind]:8.1e}" if kind in verdict.errors else f"{'-':>8}" for kind in ("jit", "so")]
    same = "yes" if verdict.same_bits else "NO"
    word = "agrees" if verdict.agrees() else "DIFFERS"
    return (
        f"{verdict.name:<13} {verdict.tensors:>7} {errors[0]} {errors[1]}  {same:<11}  {verdict.seconds:5.1f}  {word:<7}  "
        f"{verdict.problem or verdict.worst_tensor}"
    )


if __name__ == "__main__":
    sys.exit(main())
