"""One step of on_gpu.py, in a process of its own: a kernel that faults, or hangs, takes no other step with it.

    one.py device                               what GPU there is
    one.py check CASE PRECISION                 the library against the CPU's outputs: twice with arrays in host memory, then with arrays on
                                                the GPU in a stream; and, where there is a plan, its launches one by one and as a CUDA graph
    one.py bench CASE PRECISION [--peer HOW]    milliseconds of the library on arrays on the GPU, in turn with a peer: eager or compile

CASE is a folder that prepare.py wrote. The last line of standard output is json; exit code 1 with a line on standard error if something
is wrong with the machine or the case.
"""

from __future__ import annotations

import argparse
import ctypes as c
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from driver import Error, Gpu, Model

# ctypes_run.py, with which an example opens a compiled model; prepare.py puts it beside this.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import ctypes_run  # noqa: E402

WARM_UP, ROUNDS, REPEATS = 20, 15, 20
# What PyTorch calls the same architecture.
TORCHVISION = {
    "resnet50": "resnet50", "vgg19": "vgg19", "inception_v1": "googlenet", "densenet121": "densenet121", "bvlc_alexnet": "alexnet",
    "squeezenet": "squeezenet1_0", "zoo:squeezenet": "squeezenet1_1", "shufflenet": "shufflenet_v2_x1_0",
    "zoo:resnet50": "resnet50", "zoo:vgg19": "vgg19", "zoo:inception_v1": "googlenet", "zoo:densenet121": "densenet121",
    "zoo:resnet18": "resnet18", "zoo:vgg16": "vgg16",
}  # fmt: skip


class NoPeer(Exception):
    """Why PyTorch does not run beside lehr."""


def main() -> int:
    options = _parse()
    try:
        with Gpu() as gpu:
            if options.what == "device":
                result = {"device": f"{gpu.name}, sm_{gpu.capability}, driver for CUDA {gpu.driver}"}
            elif options.what == "check":
                result = check(gpu, options.case, options.precision)
            else:
                result = bench(gpu, options)
    except (Error, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


def inputs_of(case: Path) -> list[np.ndarray]:
    return [np.load(case / f"input_{k}.npy") for k in range(len(list(case.glob("input_*.npy"))))]


def check(gpu: Gpu, case: Path, precision: str) -> dict:
    inputs = inputs_of(case)
    with opened(case / f"{precision}.so") as session:
        errors = [difference(outputs, case / "expected") for outputs in library_runs(gpu, session, inputs)]
    result = {"library": max(errors)}
    if (case / f"{precision}.ptx").exists():
        with Model(gpu, case / f"{precision}.ptx") as model:
            launched = difference(model.run(inputs), case / "expected")
            model.capture()
            result["plan"] = max(launched, difference(model.run(inputs), case / "expected"))
    return result


@contextmanager
def opened(library: Path) -> Iterator[ctypes_run.Session]:
    session = ctypes_run.Session(str(library.resolve()), f"lehr_model_{library.stem}", 1)
    try:
        if session.device() < 0:
            raise Error(f"{library} runs on {session.runs_on()}")
        yield session
    except BaseException:
        # After a fault everything fails: the first error is the one to see.
        with suppress(RuntimeError):
            session.close()
        raise
    session.close()


def library_runs(gpu: Gpu, session: ctypes_run.Session, inputs: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Twice with arrays in host memory, then with all of them on the GPU and in a stream."""
    model = session.model.contents
    names = [model.outputs[i].name.decode() for i in range(model.n_outputs)]
    bound = session.bind(*inputs)
    runs = [dict(zip(names, [x.copy() for x in session.run_bound(bound)], strict=True)) for _ in range(2)]
    for host in bound[4]:
        # What the run does not write must not look right.
        host.view(np.uint8).fill(0x5A)
    with on_device(gpu, bound) as addresses:
        session.run_on(bound, gpu.stream)
        session.wait()
        for address, host in zip(addresses, bound[4], strict=True):
            gpu.download(host, address)
        gpu.synchronize()
    return [*runs, dict(zip(names, bound[4], strict=True))]


@contextmanager
def on_device(gpu: Gpu, bound: tuple) -> Iterator[list[c.c_uint64]]:
    """Lets bound tensors be copies on the GPU of their arrays; gives the outputs' addresses."""
    args_in, _, args_out, _, outputs, inputs = bound
    addresses: list[c.c_uint64] = []
    try:
        for tensors, hosts in ((args_out, outputs), (args_in, inputs)):
            for tensor, host in zip(tensors, hosts, strict=False):
                addresses.append(gpu.alloc(host.nbytes))
                gpu.upload(addresses[-1], host)
                tensor.data = addresses[-1].value
        gpu.synchronize()
        yield addresses[: len(outputs)]
    except BaseException:
        with suppress(Error):
            gpu.free_all(addresses)
        raise
    gpu.free_all(addresses)


def difference(outputs: dict[str, np.ndarray], expected: Path) -> float:
    """The largest, relative to the largest of the output."""
    worst = 0.0
    for name, got in outputs.items():
        wanted = np.load(expected / f"{name.translate({ord('/'): '_', ord(chr(92)): '_'})}.npy").astype(np.float64)
        if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
            return float("inf")
        if got.size:
            worst = max(worst, np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-30))
    return worst


def bench(gpu: Gpu, options: argparse.Namespace) -> dict:
    about = json.loads((options.case / "case.json").read_text())
    result: dict = {}
    with opened(options.case / f"{options.precision}.so") as session:
        bound = session.bind(*inputs_of(options.case))
        shape = bound[5][0].shape
        with on_device(gpu, bound):

            def repeat(times: int) -> None:
                for _ in range(times):
                    session.run_on(bound, gpu.stream)
                session.wait()

            runs: dict[str, Callable[[int], None]] = {"lehr": repeat}
            if options.peer:
                try:
                    runs[options.peer] = peer(about["network"], shape, options.precision, options.peer)
                except NoPeer as why:
                    result["no_peer"] = str(why)
                except RuntimeError as why:
                    result["no_peer"] = f"PyTorch failed: {str(why).splitlines()[0][:200]}" if str(why) else "PyTorch failed"
            result |= interleaved(runs, options.quick)
    return result


def interleaved(runs: dict[str, Callable[[int], None]], quick: bool) -> dict[str, float]:
    """Median milliseconds of a run, by the clock from a synchronised start to a synchronised end; each takes its turn in every round."""
    warm_up, rounds, repeats = (1, 1, 1) if quick else (WARM_UP, ROUNDS, REPEATS)
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(warm_up)
            start = time.perf_counter()
            run(repeats)
            samples[name].append(1e3 * (time.perf_counter() - start) / repeats)
    return {name: statistics.median(times) for name, times in samples.items()}


def peer(network: str, shape: tuple[int, ...], precision: str, how: str) -> Callable[[int], None]:
    """PyTorch on the same architecture in channels_last: eager under a CUDA graph, or compiled with max-autotune, which has CUDA graphs."""
    if network not in TORCHVISION:
        raise NoPeer("torchvision does not have it")
    if precision == "bf16":
        raise NoPeer("bf16 is not compared")
    try:
        import torch
        import torchvision
    except ImportError as error:
        raise NoPeer(f"{error.name} is not installed") from error
    if not torch.cuda.is_available():
        raise NoPeer("this PyTorch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    extra = {"aux_logits": False, "init_weights": False} if TORCHVISION[network] == "googlenet" else {}
    # Weights are made where they stay: vgg19's take seconds on a CPU.
    with torch.device("cuda"):
        model = getattr(torchvision.models, TORCHVISION[network])(weights=None, **extra).eval()
        image = torch.randn(*shape)
    model, image = (x.to(memory_format=torch.channels_last) for x in (model, image))
    if precision == "f16":
        model, image = model.half(), image.half()
    with torch.inference_mode():
        if how == "eager":
            once = captured(torch, model, image)
        else:
            compiled = torch.compile(model, mode="max-autotune")
            once = lambda: compiled(image)  # noqa: E731
            for _ in range(3):
                once()
    torch.cuda.synchronize()

    def repeat(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                once()
        torch.cuda.synchronize()

    return repeat


def captured(torch, model, image) -> Callable[[], None]:
    """One run as a CUDA graph, after some that choose algorithms."""
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            model(image)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = model(image)

    def replay(_read_and_written: tuple = (model, image, result)) -> None:
        graph.replay()

    return replay


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    kinds.add_parser("device")
    for kind in ("check", "bench"):
        of_case = kinds.add_parser(kind)
        of_case.add_argument("case", type=Path)
        of_case.add_argument("precision")
    of_case.add_argument("--peer", choices=("eager", "compile"))
    of_case.add_argument("--quick", action="store_true", help="one round of one run: shows that it works, measures nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
