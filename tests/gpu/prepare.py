"""Compiles networks for a GPU and computes what they must give, on the CPU: the folder is then carried to a machine with a GPU.

    prepare.py --lehr LEHR OUT NETWORK... [--target sm_80] [--precisions fp32,tf32,f16] [--batches 1,32]

A NETWORK is a folder that tests/peers/make_networks.py writes (model.onnx, and input_0.npy if there is one), or zoo:NAME for one that lehr
has built in. Needs numpy, and for folders onnx: that is tests/requirements.txt. OUT/NAME-bBATCH gets for each precision a library
PRECISION.so, for the smallest batch also PRECISION.ptx, .json and .weights, the inputs, and the CPU's outputs as .npy. OUT gets the scripts
as well, so that it is all to carry: python3 OUT/on_gpu.py OUT. A case that this LEHR has made already is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SCRIPTS = (HERE / "on_gpu.py", HERE / "one.py", HERE / "report.py", HERE / "driver.py", HERE.parent / "examples" / "ctypes_run.py")
# Seconds for one call of lehr.
LIMIT = 900
NUMPY = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bool": np.bool_}
NUMPY |= {f"{kind[0]}{bits}": np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


@dataclass
class Case:
    """A network at a batch, and the folder that it goes to."""

    network: str
    batch: int
    out: Path

    @property
    def is_zoo(self) -> bool:
        return self.network.startswith("zoo:")

    @property
    def model(self) -> Path:
        """Of a folder."""
        return Path(self.network) / "model.onnx"

    def about(self, options: argparse.Namespace, made_by: str) -> dict:
        """What on_gpu.py must know, and what it was made of."""
        name = self.network if self.is_zoo else Path(self.network).name
        source = None if self.is_zoo else [self.model.stat().st_size, self.model.stat().st_mtime_ns]
        about = {"network": name, "batch": self.batch, "target": options.target, "precisions": options.precisions}
        return about | {"made_by": made_by, "source": source, "plans": self.batch == min(options.batches)}


def main() -> None:
    options = _parse()
    made_by = hashlib.sha256(Path(options.lehr).read_bytes()).hexdigest()
    cases = [Case(n, b, options.out / f"{folder_name(n)}-b{b}") for n in options.networks for b in options.batches]
    if len({c.out for c in cases}) < len(cases):
        sys.exit("error: two networks have one name, or a batch is given twice: their cases would be one folder")
    with ThreadPoolExecutor(options.jobs) as pool:
        for said in pool.map(lambda c: prepare(options, c, made_by), cases):
            print(said, flush=True)
    for script in SCRIPTS:
        shutil.copy(script, options.out)


def folder_name(network: str) -> str:
    zoo = network.startswith("zoo:")
    return re.sub(r"[^A-Za-z0-9]+", "_", network.removeprefix("zoo:")) if zoo else Path(network).name


def prepare(options: argparse.Namespace, case: Case, made_by: str) -> str:
    out, done, about = case.out, case.out / "case.json", case.about(options, made_by)
    if done.exists() and json.loads(done.read_text()) == about:
        return f"{out}: made already"
    # What an earlier one left would be taken for this one's.
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        model: list[object] = [case.network, "--dim", f"batch={case.batch}"]
        if not case.is_zoo:
            model = [Path(scratch) / "model.onnx"]
            rebatch(case.model, case.batch, model[0])
        for precision in options.precisions:
            flags = ["--target", options.target, "--gpu-precision", precision, "-q"]
            lehr(options, "compile", *model, "-o", out / f"{precision}.so", *flags)
            if about["plans"]:
                lehr(options, "compile", *model, "-o", out / f"{precision}.ptx", *flags)
                share(out / f"{precision}.weights", [out / f"{p}.weights" for p in options.precisions])
        interface = json.loads(lehr(options, "inspect", out / f"{options.precisions[0]}.so", "--json"))
        feeds: list[object] = []
        for k, spec in enumerate(interface["inputs"]):
            np.save(out / f"input_{k}.npy", values(spec["type"], Path(case.network) / f"input_{k}.npy", seed=k))
            feeds += ["--input", f"{spec['name']}={out / f'input_{k}.npy'}"]
        # Winograd's algorithm has larger rounding errors than what is to be found here.
        lehr(options, "run", *model, *feeds, "--numerics", "strict", "--output-dir", out / "expected")
    # Last: who finds it finds all.
    done.write_text(json.dumps(about))
    return str(out)


def values(ty: str, file: Path, seed: int) -> np.ndarray:
    """For an input of a type like f32[32,3,224,224]: the file's, if it is of that shape but for the batch, and random ones, each image its
    own, so that a kernel that mixes them up shows."""
    dtype, dims = re.fullmatch(r"(\w+)\[([\d,]*)\]", ty).groups()
    if dtype not in NUMPY:
        sys.exit(f"error: there is no way to make an input of {ty}")
    shape = tuple(int(d) for d in dims.split(",") if d)
    rng = np.random.default_rng(seed)
    # Small integers: what they are indices into has two entries at least.
    random = rng.standard_normal(shape) if dtype[0] == "f" else rng.integers(0, 2, shape)
    if file.exists() and (given := np.load(file)).ndim and given.shape[1:] == shape[1:] and len(given) <= shape[0]:
        random = random * (given.std() or 1)
        random[: len(given)] = given
    return random.astype(NUMPY[dtype])


def rebatch(source: Path, batch: int, path: Path) -> None:
    """Writes the model for another batch: the first dimension of its input, and of the shapes that it is reshaped to."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        sys.exit(f"error: {source} needs the package onnx, which sets its batch; networks like zoo:resnet50 do without")
    model = onnx.load(source)
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    for value in graph.input:
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes and len(changed := numpy_helper.to_array(tensor).copy()) and changed[0] == 1:
            changed[0] = batch
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, path)


def share(path: Path, others: list[Path]) -> None:
    """Precisions have the same weights, but for how they are cut and rounded: equal files are one."""
    for other in others:
        same_size = other != path and other.exists() and not other.is_symlink() and other.stat().st_size == path.stat().st_size
        if same_size and other.read_bytes() == path.read_bytes():
            path.unlink()
            os.link(other, path)
            return


def lehr(options: argparse.Namespace, *args: object) -> str:
    command = [options.lehr, *map(str, args)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        sys.exit(f"error: {' '.join(command)}: no end within {LIMIT} s")
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--lehr", required=True)
    parser.add_argument("--target", default="sm_80")
    parser.add_argument("--precisions", type=lambda s: s.split(","), default=["fp32", "tf32", "f16"])
    parser.add_argument("--batches", type=lambda s: [int(n) for n in s.split(",")], default=[1, 32])
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time [default: 1]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
