"""Times one peer on models in a process of its own, and prints a line of JSON (a `Measurement`) for each.

    bench_peer.py PEER --threads N --seconds S [--case MODEL INPUTS OUT.npy]...

PEER is lehr or one of its variants (MODEL.so), onnxruntime, openvino (MODEL.onnx), mnn (MODEL.mnn) or ncnn (MODEL.param, with
MODEL.bin beside it); INPUTS is the folder of input_0.npy and so on. With no seconds a model runs but once. All compute in f32 from the same inputs, and give the output back as a numpy
array, which is part of the time. A package is imported before the clock of the first answer starts; a peer that fails prints
{"problem": "..."} instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

# ctypes_run.py, with which an example opens a compiled model.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

# lehr with other flags (convert.py), which tables set beside lehr as it is like peers.
VARIANTS = ("lehr-os", "lehr-strict", "lehr-avx2", "lehr-avx2-strict")
WARM_UP_RUNS = 3
# What a line with an answer starts with.
ANSWER = "answer: "
Run = Callable[[list[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Measurement:
    """Peak memory is what the process holds while it runs the model beyond what Python held before it loaded the peer."""

    median_ms: float
    p95_ms: float
    min_ms: float
    first_ms: float  # from the load to the first answer; the times above are this one if nothing else ran
    peak_mb: float


def load_lehr(model: Path, threads: int) -> Run:
    import ctypes_run

    session = ctypes_run.Session(str(model), f"lehr_model_{model.stem}", threads)
    bound: list[tuple] = []

    def run(inputs: list[np.ndarray]) -> np.ndarray:
        # The caller owns outputs, and may use the same memory again.
        if not bound:
            bound.append(session.bind(*inputs))
        return session.run_bound(bound[0])[0]

    # Threads of the model use the session's memory until it is closed.
    weakref.finalize(run, session.close)
    return run


def load_onnxruntime(model: Path, threads: int) -> Run:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs)))[0]


def load_openvino(model: Path, threads: int) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(str(model), "CPU", settings).create_infer_request()
    return lambda inputs: np.array(request.infer(inputs, share_inputs=True, share_outputs=True)[0])


def load_mnn(model: Path, threads: int) -> Run:
    import MNN

    interpreter = MNN.Interpreter(str(model))
    session = interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
    source, result = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)
    kind, layout = MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe

    def run(inputs: list[np.ndarray]) -> np.ndarray:
        (image,) = inputs
        source.copyFrom(MNN.Tensor(image.shape, kind, image, layout))
        interpreter.runSession(session)
        shape = result.getShape()
        host = MNN.Tensor(shape, kind, np.zeros(shape, np.float32), layout)
        result.copyToHostTensor(host)
        return np.array(host.getNumpyData())

    return run


def load_ncnn(model: Path, threads: int) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    if net.load_param(str(model)) != 0 or net.load_model(str(model.with_suffix(".bin"))) != 0:
        raise RuntimeError("the converted network does not load")
    source, result = net.input_names()[0], net.output_names()[0]

    def run(inputs: list[np.ndarray]) -> np.ndarray:
        extractor = net.create_extractor()
        # ncnn's matrices have no batch dimension.
        extractor.input(source, ncnn.Mat(inputs[0][0]))
        status, output = extractor.extract(result)
        if status != 0:
            raise RuntimeError(f"the converted network does not run (status {status})")
        return np.array(output)

    return run


LOADERS = {
    **{name: (load_lehr, "ctypes_run") for name in ("lehr", *VARIANTS)},
    "onnxruntime": (load_onnxruntime, "onnxruntime"),
    "openvino": (load_openvino, "openvino"),
    "mnn": (load_mnn, "MNN"),
    "ncnn": (load_ncnn, "ncnn"),
}


def measure(options: argparse.Namespace, model: Path, folder: Path, answer: Path) -> Measurement:
    load, package = LOADERS[options.peer]
    inputs = [np.load(file) for file in sorted(folder.glob("input_*.npy"))]
    before = _status_mb("VmRSS")
    importlib.import_module(package)
    start = time.perf_counter()
    run = load(model.resolve(), options.threads)
    output = run(inputs)
    first_ms = (time.perf_counter() - start) * 1e3
    np.save(answer, output)
    times = []
    for _ in range(WARM_UP_RUNS if options.seconds > 0 else 0):
        run(inputs)
    # "5" resets the peak, so that it is that of running and not of loading.
    Path("/proc/self/clear_refs").write_text("5")
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run(inputs)
        times.append((time.perf_counter() - start) * 1e3)
    times = times or [first_ms]
    median, p95 = np.percentile(times, [50, 95])
    return Measurement(float(median), float(p95), min(times), first_ms, _status_mb("VmHWM") - before)


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no {key}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=LOADERS)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    case = ("MODEL", "INPUTS", "OUT")
    parser.add_argument("--case", type=Path, nargs=3, action="append", metavar=case, required=True, help="OUT: the first answer")
    options = parser.parse_args()
    for model, folder, output in options.case:
        try:
            answer: dict[str, object] = asdict(measure(options, model, folder, output))
        except ImportError as error:
            answer = {"problem": f"not installed here ({error})"}
        except Exception as error:  # the peers raise types of their own; each becomes a dash with this reason
            answer = {"problem": " ".join(str(error).split())[:200] or type(error).__name__}
        # Some peers print while they load.
        print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
    # Some peers' pools do not end with the interpreter.
    os._exit(0)


if __name__ == "__main__":
    main()
