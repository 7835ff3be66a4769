"""Brings a network into the form that each peer loads: `prepare` gives the file, or raises why there is none."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
from bench_peer import VARIANTS
from peers_common import LehrError, compile_so

PEERS = ("onnxruntime", "openvino", "mnn", "ncnn")
TIMEOUT_S = 600


class ConversionError(Exception):
    """A network that a peer cannot load, and why."""


def prepare(peer: str, lehr: Path, model: Path, scratch: Path) -> Path:
    if peer == "lehr" or peer in VARIANTS:
        try:
            compile_so(lehr, model, scratch / "model.so", *_flags(peer))
        except LehrError as error:
            raise ConversionError(str(error)) from error
        return scratch / "model.so"
    if peer == "mnn":
        source, out = scratch / "mnn.onnx", scratch / "model.mnn"
        onnx.save(with_explicit_axes(model), source)
        converter = shutil.which("mnnconvert", path=Path(sys.executable).parent)
        _convert([converter, "-f", "ONNX", "--modelFile", source, "--MNNModel", out, "--bizCode", "lehr"], "mnnconvert", out)
        source.unlink()
        return out
    if peer == "ncnn":
        source, out = scratch / "network.onnx", scratch / "network.ncnn.param"
        onnx.save(with_explicit_axes(model), source)
        _convert([_pnnx(), source, "fp16=0"], "pnnx", out, scratch / "network.ncnn.bin")
        for rest in scratch.glob("network*.onnx"):
            rest.unlink()
        return out
    return model


def _flags(peer: str) -> list[str]:
    strict = ["--numerics", "strict"] if peer.endswith("-strict") else []
    # The same caches, so that nothing differs but the instructions.
    avx2 = ["--target-cpu", "x86-64-v3", "--caches", _caches()] if "-avx2" in peer else []
    return ["-Os" if peer == "lehr-os" else "-O2", *strict, *avx2]


def _caches() -> str:
    """Sizes of the first (data), second and third level, as `--caches` has them, like 48K,2048K,32M."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / file).read_text().strip() for file in ("level", "type", "size"))
        if kind != "Instruction":
            sizes[level] = size
    return ",".join(sizes[level] for level in ("1", "2", "3"))


def with_explicit_axes(model: Path) -> onnx.ModelProto:
    """The model with its Softmax saying the axis: before opset 13 none means 1, and converters read none as the last."""
    network = onnx.load(model)
    for node in network.graph.node:
        if node.op_type == "Softmax" and not node.attribute:
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
    return network


def _pnnx() -> Path | None:
    """pnnx's program; its Python package would import torch, which it needs only for torch's own models."""
    package = importlib.util.find_spec("pnnx")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).with_name("pnnx")


def _convert(command: list[object], name: str, *outputs: Path) -> None:
    if command[0] is None:
        raise ConversionError(f"{name} is not installed here")
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=outputs[0].parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(f"{name}: {error}") from error
    if done.returncode != 0 or not all(out.exists() for out in outputs):
        raise ConversionError(f"{name} ended with code {done.returncode}: {' '.join(done.stdout.split())[-200:]}")
