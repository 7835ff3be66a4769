"""Runs what prepare.py wrote on a GPU: with a driver, Python and numpy, and nothing else of NVIDIA's.

    on_gpu.py FOLDER check                 every case against the CPU's outputs: launched one by one, as a CUDA graph, and by the library,
                                           with arrays in host memory and on the GPU
    on_gpu.py FOLDER bench [--table FILE]  latency and throughput; beside PyTorch (torch, torchvision) where that is installed
    on_gpu.py FOLDER sanitize              compute-sanitizer's memcheck and racecheck over lenet5 and inception_v1

Errors are relative to the largest output. Times are medians of CUDA events around replays, PyTorch's interleaved with lehr's in one
run: eager channels_last under a CUDA graph, and torch.compile (max-autotune), whichever is faster.
"""

from __future__ import annotations

import argparse
import ctypes as c
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from driver import Error, Gpu, Model

# ctypes_run.py, with which an example opens a compiled model.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import ctypes_run  # noqa: E402

# fp32 as the CPU computes it; the others as the layers' factors are rounded (2^-11), over the depth of these networks.
BOUNDS = {"fp32": 1e-5, "tf32": 4e-3, "f16": 4e-3, "bf16": 3e-2}
SANITIZED = ("lenet5-b1", "inception_v1-b1")
WARM_UP, ROUNDS, REPEATS = 20, 15, 20
TORCHVISION = {
    "resnet50": "resnet50", "vgg19": "vgg19", "inception_v1": "googlenet", "squeezenet": "squeezenet1_0",
    "densenet121": "densenet121", "bvlc_alexnet": "alexnet", "shufflenet": "shufflenet_v2_x1_0",
}  # fmt: skip


def main() -> int:
    options = _parse()
    cases = sorted(p.parent for p in options.folder.glob("*/case.json"))
    cases = [c for c in cases if not options.only or c.name in options.only.split(",")]
    if not cases:
        sys.exit(f"{options.folder}: prepare.py has written no such case here")
    if options.what == "sanitize":
        return sanitize(options.folder, [c for c in cases if c.name in SANITIZED])
    try:
        gpu = Gpu()
        print(f"{gpu.name}, sm_{gpu.capability}")
        return check(gpu, cases) if options.what == "check" else bench(gpu, cases, options.table)
    except Error as error:
        sys.exit(f"error: {error}")


def check(gpu: Gpu, cases: list[Path]) -> int:
    failed = 0
    for case in cases:
        image = np.load(case / "input_0.npy")
        precisions = json.loads((case / "case.json").read_text())["precisions"]
        library = case / f"{precisions[0]}.so"
        error = max(difference(outputs, case / "expected") for outputs in library_runs(gpu, library, image))
        good = bool(error <= BOUNDS[precisions[0]])
        failed += not good
        print(f"{case.name} {library.name}: {error:.2e} {'ok' if good else 'TOO FAR'}", flush=True)
        for precision in precisions:
            model = Model(gpu, case / f"{precision}.ptx")
            errors = []
            for graph in (False, True):
                if graph:
                    model.capture()
                errors.append(difference(model.run([image]), case / "expected"))
            good = max(errors) <= BOUNDS[precision]
            failed += not good
            print(f"{case.name} {precision}: {max(errors):.2e} {'ok' if good else 'TOO FAR'}", flush=True)
    print("agrees" if not failed else f"{failed} do not agree")
    return failed > 0


def library_runs(gpu: Gpu, path: Path, image: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Twice with arrays in host memory, then with all of them on the GPU and in a stream."""
    session = ctypes_run.Session(str(path), f"lehr_model_{path.stem}", 1)
    if not session.runs_on().startswith("GPU"):
        raise Error(f"{path} runs on {session.runs_on()}")
    model = session.model.contents
    names = [model.outputs[i].name.decode() for i in range(model.n_outputs)]
    bound = session.bind(image)
    runs = [dict(zip(names, [x.copy() for x in session.run_bound(bound)], strict=True)) for _ in range(2)]
    arrays, outputs = [], bound[4]
    for tensors, hosts in ((bound[0], bound[5]), (bound[2], outputs)):
        for tensor, host in zip(tensors, hosts, strict=False):
            address = gpu.alloc(host.nbytes)
            gpu("cuMemcpyHtoD_v2", address, c.c_void_p(host.ctypes.data), c.c_size_t(host.nbytes))
            tensor.data = address.value
            arrays.append((address, host))
    for host in outputs:
        host.fill(0)
    session.run_on(bound, gpu.stream)
    session.wait()
    for address, host in arrays[len(bound[5]) :]:
        gpu("cuMemcpyDtoH_v2", c.c_void_p(host.ctypes.data), address, c.c_size_t(host.nbytes))
    session.close()
    for address, _ in arrays:
        gpu("cuMemFree_v2", address)
    return [*runs, dict(zip(names, outputs, strict=True))]


def difference(outputs: dict[str, np.ndarray], expected: Path) -> float:
    worst = 0.0
    for name, got in outputs.items():
        wanted = np.load(expected / f"{name.replace('/', '_')}.npy").astype(np.float64)
        if not np.isfinite(got).all():
            return float("inf")
        worst = max(worst, np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-30))
    return worst


def sanitize(folder: Path, cases: list[Path]) -> int:
    failed = 0
    for case in cases:
        for tool in ("memcheck", "racecheck"):
            command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, __file__]
            done = subprocess.run([*command, str(folder), "check", "--only", case.name], check=False)
            failed += done.returncode != 0
            print(f"{case.name} {tool}: {'clean' if not done.returncode else 'NOT CLEAN'}", flush=True)
    return failed > 0


def bench(gpu: Gpu, cases: list[Path], table: Path | None) -> int:
    head = ["network", "batch", "precision", "lehr ms", "images/s", "PyTorch ms", "how", "lehr's speed / PyTorch's"]
    lines = [f"{gpu.name}, sm_{gpu.capability}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    print("\n".join(lines), flush=True)
    for case in cases:
        about = json.loads((case / "case.json").read_text())
        for precision in about["precisions"]:
            model = Model(gpu, case / f"{precision}.ptx")
            model.run([np.load(case / "input_0.npy")])
            model.capture()
            runs: dict[str, Callable[[], float]] = {"lehr": lambda model=model: by_events(gpu, model.replay)}
            runs |= torch_runs(about["network"], about["batch"], precision)
            times = interleaved(runs)
            lehr = times.pop("lehr")
            how = min(times, key=times.__getitem__, default="")
            peer = f"{times[how]:.3f} | {how} | {times[how] / lehr:.2f}" if how else "- | - | -"
            cells = [about["network"], about["batch"], precision, f"{lehr:.3f}", f"{1e3 * about['batch'] / lehr:.0f}", peer]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            print(lines[-1], flush=True)
    if table:
        table.write_text("\n".join(lines) + "\n")
    return 0


def interleaved(runs: dict[str, Callable[[], float]]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            samples[name].append(run())
    return {name: statistics.median(times) for name, times in samples.items()}


def by_events(gpu: Gpu, replay: Callable[[], None]) -> float:
    start, end = gpu.event(), gpu.event()
    for _ in range(WARM_UP):
        replay()
    gpu.record(start)
    for _ in range(REPEATS):
        replay()
    gpu.record(end)
    return gpu.milliseconds(start, end) / REPEATS


def torch_runs(network: str, batch: int, precision: str) -> dict[str, Callable[[], float]]:
    """PyTorch's ways to run the same architecture, if it is installed and has it."""
    if network not in TORCHVISION or precision == "bf16":
        return {}
    try:
        import torch
        import torchvision
    except ImportError:
        return {}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    extra = {"aux_logits": False, "init_weights": False} if network == "inception_v1" else {}
    model = getattr(torchvision.models, TORCHVISION[network])(weights=None, **extra).eval().cuda()
    model = model.to(memory_format=torch.channels_last)
    image = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    if precision == "f16":
        model, image = model.half(), image.half()
    runs: dict[str, Callable[[], float]] = {}
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(image)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(image)
        runs["eager, CUDA graph"] = lambda: torch_time(torch, graph.replay)
        compiled = torch.compile(model, mode="max-autotune")
        for _ in range(3):
            compiled(image)

    def replay() -> None:
        with torch.inference_mode():
            compiled(image)

    runs["torch.compile"] = lambda: torch_time(torch, replay)
    return runs


def torch_time(torch: object, run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(WARM_UP):
        run()
    start.record()
    for _ in range(REPEATS):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / REPEATS


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("check", "bench", "sanitize"))
    parser.add_argument("--only", help="cases, by the names of their folders: resnet50-b1,...")
    parser.add_argument("--table", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
