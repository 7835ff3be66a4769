"""Times ONNX Runtime on one model in a process of its own and prints what `lehr bench --json` does."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP_RUNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path, help="the model's only input, .npy")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(options.model), settings, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: np.load(options.input)}
    for _ in range(WARM_UP_RUNS):
        session.run(None, feeds)
    times = []
    end = time.perf_counter() + options.seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        times.append((time.perf_counter() - start) * 1e3)
    median, p95 = np.percentile(times, [50, 95])
    print(json.dumps({"median_ms": float(median), "p95_ms": float(p95), "min_ms": min(times)}))


if __name__ == "__main__":
    main()
