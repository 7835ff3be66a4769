"""Compares lehr with ONNX Runtime on the nine networks with random weights.

    agree.py --lehr target/release/lehr                    outputs at -O2, by JIT and as .so, with 1 and 2 threads
    agree.py --lehr target/release/lehr --intermediates    every intermediate tensor at -O0, by JIT and as .so

An error is max |ours - theirs| / max |theirs| of one tensor. A network agrees when no error is above 1e-5 and one and two
threads give the same bits. Prints a line per network; the exit code is 1 when one does not agree.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
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


class Reference:
    """ONNX Runtime on one model; unoptimised it keeps every tensor that the model names."""

    def __init__(self, model: Path, optimise: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.input = self._session.get_inputs()[0].name
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, image: np.ndarray) -> Tensors:
        return dict(zip(self.outputs, self._session.run(self.outputs, {self.input: image})))


def compare(lehr: Path, name: str, intermediates: bool, inputs: int) -> Verdict:
    verdict = Verdict(name)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lehr-agree-") as scratch:
        _compare_in(Path(scratch), lehr, cached_network(name), intermediates, inputs, verdict)
    verdict.seconds = time.monotonic() - start
    return verdict


def _compare_in(scratch: Path, lehr: Path, folder: Path, intermediates: bool, inputs: int, verdict: Verdict) -> None:
    model, level = folder / "model.onnx", "-O2"
    if intermediates:
        exposed = expose_intermediates(onnx.load(model))
        model, level = scratch / "exposed.onnx", "-O0"
        onnx.save(exposed, model)
    reference = Reference(model, optimise=not intermediates)
    verdict.tensors = len(reference.outputs)
    so = scratch / "model.so"
    problems = []
    try:
        compile_so(lehr, model, so, level)
    except LehrError as error:
        problems.append(str(error))
    artefacts = {"jit": [model, level], "so": [so]} if so.exists() else {"jit": [model, level]}
    for number in range(inputs):
        image = np.load(folder / "input_0.npy")
        if number > 0:
            image = np.random.default_rng(number).standard_normal(image.shape, np.float32)
        np.save(scratch / "input.npy", image)
        expected = reference.run(image)
        for kind, arguments in artefacts.items():
            call = ["run", *arguments, "--input", f"{reference.input}={scratch / 'input.npy'}"]
            try:
                runs = [_run_lehr(lehr, call, scratch / kind, threads, reference.outputs) for threads in THREADS]
            except LehrError as error:
                problems.append(f"{kind}: {error}")
                continue
            for ours in runs:
                verdict.add(kind, expected, ours)
            verdict.same_bits &= all(_same_bits(runs[0][tensor], runs[1][tensor]) for tensor in expected)
    verdict.problem = "; ".join(problems)


def _run_lehr(lehr: Path, call: list[object], out: Path, threads: int, names: list[str]) -> Tensors:
    folder = out.with_name(f"{out.name}-{threads}")
    # What an earlier run left must not pass for this one's output.
    shutil.rmtree(folder, ignore_errors=True)
    call_lehr(lehr, *call, "--output-dir", folder, "--threads", threads)
    return read_outputs(folder, names)


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
