"""Compiles networks for a GPU and computes what they must give, here on the CPU: the folder is then carried to a machine with a GPU.

    prepare.py --lehr LEHR OUT NETWORK_FOLDER... [--target sm_80] [--precisions fp32,tf32,f16] [--batches 1,32]

A network folder is one of those that tests/peers/make_networks.py writes: model.onnx and input_0.npy; zoo:lenet5 stands for lehr's own. Needs onnx and numpy, that is
tests/requirements.txt. OUT/NAME-bBATCH holds for each precision PRECISION.ptx, .json and .weights, for the first PRECISION.so as well, and
the input and the CPU's outputs as .npy; on the other machine, on_gpu.py needs those alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def main() -> None:
    options = _parse()
    for folder in options.networks:
        for batch in options.batches:
            out = options.out / f"{folder.removeprefix('zoo:').rstrip('/').split('/')[-1]}-b{batch}"
            out.mkdir(parents=True, exist_ok=True)
            prepare(options, folder, batch, out)
            print(out, flush=True)


def prepare(options: argparse.Namespace, folder: str, batch: int, out: Path) -> None:
    zoo = folder.startswith("zoo:")
    image = np.random.default_rng(0).random((1, 1, 28, 28), np.float32) if zoo else np.load(f"{folder}/input_0.npy")
    rng = np.random.default_rng(batch)
    # Every image its own: a kernel that mixes them up shows.
    images = np.concatenate([image] + [rng.standard_normal(image.shape, np.float32) * image.std() for _ in range(batch - 1)])
    np.save(out / "input_0.npy", images.astype(np.float32))
    with tempfile.TemporaryDirectory() as scratch:
        path: list[object] = [folder, "--dim", f"batch={batch}"]
        if not zoo:
            path = [Path(scratch) / "model.onnx"]
            onnx.save(rebatched(onnx.load(f"{folder}/model.onnx"), batch), path[0])
        for precision in options.precisions:
            ptx = out / f"{precision}.ptx"
            _run(options.lehr, "compile", *path, "-o", ptx, "--target", options.target, "--gpu-precision", precision, "-q")
            if precision != options.precisions[0]:
                # All have the same weights, but for how they are cut.
                share(ptx.with_suffix(".weights"), out / f"{options.precisions[0]}.weights")
        library = out / f"{options.precisions[0]}.so"
        target = ["--target", options.target, "--gpu-precision", options.precisions[0]]
        _run(options.lehr, "compile", *path, "-o", library, *target, "-q")
        _run(options.lehr, "run", *path, "--input", out / "input_0.npy", "--output-dir", out / "expected")
    (out / "case.json").write_text(json.dumps({"network": out.name.rsplit("-b", 1)[0], "batch": batch, "precisions": options.precisions}))


def rebatched(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model for another batch: the first dimension of its input, and of the shapes that it is reshaped to."""
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    for value in graph.input:
        if value.name not in weights:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in shapes and len(values) and values[0] == 1:
            changed = values.copy()
            changed[0] = batch
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def share(path: Path, other: Path) -> None:
    if other.exists() and path.read_bytes() == other.read_bytes():
        path.unlink()
        path.symlink_to(other.name)


def _run(*command: object) -> None:
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NETWORK_FOLDER")
    parser.add_argument("--lehr", required=True)
    parser.add_argument("--target", default="sm_80")
    parser.add_argument("--precisions", type=lambda s: s.split(","), default=["fp32", "tf32", "f16"])
    parser.add_argument("--batches", type=lambda s: [int(n) for n in s.split(",")], default=[1, 32])
    return parser.parse_args()


if __name__ == "__main__":
    main()
