"""What bench.py times: tables of models, each in a folder of the cache with its inputs, made on first use from seeds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from peers_common import cached_network

BATCH = 8
BATCH_NETWORKS = ("resnet50", "vgg19")
SQUARES = (64, 128, 256, 512, 1024, 2048)
# 1 x K x N as in the classifiers of alexnet, vgg19 and zfnet512, and a batch of them. Weights are constants.
CLASSIFIERS = ((1, 9216, 4096), (1, 4096, 4096), (1, 4096, 1000), (8, 4096, 4096))
# An input of this name is made of positive numbers.
POSITIVE = "positive"
LOADERS_OF_TWO_INPUTS = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Work:
    """What a case takes at least: floating-point operations (by the direct algorithm), and bytes of weights that it reads."""

    flops: float
    bytes: int = 0


@dataclass(frozen=True)
class Table:
    """Models that are timed by the same peers, and whether each runs in a process of its own."""

    title: str
    note: str
    peers: tuple[str, ...]
    cases: Callable[[list[str]], dict[str, Path]]  # of the networks asked for: name -> folder
    alone: bool = False
    footprint: bool = False  # whether first answers, memory and files are shown too
    work: Callable[[], dict[str, Work]] | None = None  # if given, times are also shown as shares of what the cores can do


@dataclass(frozen=True)
class Layer:
    """A convolution from `inputs` to `outputs` channels on square planes."""

    inputs: int
    outputs: int
    plane: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    def name(self) -> str:
        rest = f"/{self.stride}" * (self.stride > 1) + f" in {self.groups} groups" * (self.groups > 1)
        return f"{self.kernel}x{self.kernel}{rest} {self.inputs}->{self.outputs} @{self.plane}"

    def work(self) -> Work:
        outputs = (-(-self.plane // self.stride)) ** 2 * self.outputs
        return Work(2.0 * outputs * self.inputs // self.groups * self.kernel**2)


LAYERS = (
    Layer(64, 64, 224), Layer(128, 128, 112), Layer(256, 256, 56), Layer(512, 512, 28), Layer(64, 64, 56),
    Layer(128, 128, 28), Layer(256, 256, 14), Layer(512, 512, 14), Layer(512, 512, 7), Layer(128, 32, 28),
    Layer(48, 128, 26, kernel=5), Layer(128, 128, 56, stride=2), Layer(256, 256, 28, stride=2),
    Layer(64, 256, 56, kernel=1), Layer(512, 256, 28, kernel=1), Layer(1024, 512, 14, kernel=1),
    Layer(96, 96, 56, groups=96), Layer(3, 64, 224, kernel=7, stride=2), Layer(3, 96, 224, kernel=11, stride=4),
)  # fmt: skip

# Elements of which input and result together lie in the L1 cache, in the L2 cache, and in memory.
SIZES = {"L1": 3 << 10, "L2": 96 << 10, "memory": 8 << 20}
# Functions that a model calls as one operator, and the opset that has them all.
FUNCTIONS = ("Exp", "Log", "Tanh", "Sigmoid", "Erf", "Gelu", "Sin", "Softplus")
FUNCTIONS_OPSET = 20
# Shape and axes of what is reduced; shape and axis of softmax; shapes of x for normalisations.
REDUCTIONS = (((1024, 1024), (1,)), ((1024, 1024), (0,)), ((64, 256, 64), (1,)), ((32, 64, 28, 28), (0, 2, 3)), ((1 << 18,), (0,)))
REDUCERS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp")
SOFTMAXES = (
    ((16384, 2), 1), ((8192, 8), 1), ((4096, 16), 1), ((2048, 24), 1), ((2048, 32), 1), ((2048, 64), 1), ((512, 128), 1),
    ((256, 1000), 1), ((1, 21, 128, 128), 1),
)  # fmt: skip
NORMALISATIONS = {
    "LayerNormalization": ((2048, 16), (2048, 64), (512, 768)),
    "InstanceNormalization": ((1, 64, 56, 56), (1, 64, 128, 128)),
    "GroupNormalization": ((1, 320, 64, 64), (1, 512, 7, 7)),
}
GROUPS = 32
GROUPS_OPSET = 21


def networks(names: list[str]) -> dict[str, Path]:
    return {name: cached_network(name) for name in names}


def batches(names: list[str]) -> dict[str, Path]:
    return {name: _cached(f"{name}-{BATCH}", lambda: _with_batch(name)) for name in names if name in BATCH_NETWORKS}


def products(_: list[str]) -> dict[str, Path]:
    cases = {f"{n} x {n} x {n}": _cached(f"product-{n}", lambda n=n: _product(n, n, n, False)) for n in SQUARES}
    for m, k, n in CLASSIFIERS:
        cases[f"{m} x {k} x {n}, weights"] = _cached(f"product-{m}-{k}-{n}", lambda: _product(m, k, n, True))
    return cases


def product_work() -> dict[str, Work]:
    squares = {f"{n} x {n} x {n}": Work(2.0 * n**3) for n in SQUARES}
    return squares | {f"{m} x {k} x {n}, weights": Work(2.0 * m * k * n, 4 * k * n) for m, k, n in CLASSIFIERS}


def layer_work() -> dict[str, Work]:
    return {layer.name(): layer.work() for layer in LAYERS}


def layers(_: list[str]) -> dict[str, Path]:
    name = "layer-{0.inputs}-{0.outputs}-{0.plane}-{0.kernel}-{0.stride}-{0.groups}"
    return {layer.name(): _cached(name.format(layer), lambda: _layer(layer)) for layer in LAYERS}


def elementwise(_: list[str]) -> dict[str, Path]:
    cases = [(function, size) for function in FUNCTIONS for size in SIZES]
    return {f"{f} in {size}": _cached(f"{f}-{size}", lambda f=f, n=SIZES[size]: _function(f, n)) for f, size in cases}


def cells(_: list[str]) -> dict[str, Path]:
    """Reductions, softmax and normalisations."""
    made: dict[str, Callable[[], ModelProto]] = {}
    for shape, axes in REDUCTIONS:
        for reducer in REDUCERS:
            name = f"{reducer} {_sizes(shape)} over {','.join(map(str, axes))}"
            made[name] = lambda r=reducer, s=shape, a=axes: _reduction(r, s, a)
    for shape, axis in SOFTMAXES:
        made[f"Softmax {_sizes(shape)} over {axis}"] = lambda s=shape, a=axis: _model(
            [helper.make_node("Softmax", ["x"], ["y"], axis=a)], {"x": [*s]}, [*s], {}
        )
    for operator, shapes in NORMALISATIONS.items():
        for shape in shapes:
            made[f"{operator} {_sizes(shape)}"] = lambda o=operator, s=shape: _normalisation(o, s)
    return {name: _cached(name.replace(" ", "-"), make) for name, make in made.items()}


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


ALL_PEERS = ("onnxruntime", "openvino", "mnn", "ncnn")
TABLES = {
    "networks": Table("Latency", "Batch 1.", ALL_PEERS, networks, alone=True, footprint=True),
    "batch": Table(f"Batch {BATCH}", "Peers whose model carries a batch.", ("onnxruntime", "openvino"), batches, alone=True),
    "products": Table(
        "Matrix products",
        "M x K x N: of two inputs, or with constant weights.",
        LOADERS_OF_TWO_INPUTS,
        products,
        work=product_work,
    ),
    "layers": Table(
        "Single layers",
        "Each once, with Relu, between a 1x1 convolution from 3 channels (stems have none) and a mean over the plane, so that no\n"
        "conversion of layouts is timed; those are part of the time, for every peer.",
        ALL_PEERS,
        layers,
        work=layer_work,
    ),
    "avx2": Table(
        "AVX2 beside AVX-512",
        "The same layers, strict (direct convolutions everywhere) and as they are by default.",
        ("lehr-strict", "lehr-avx2", "lehr-avx2-strict"),
        layers,
        work=layer_work,
    ),
    "variants": Table(
        "lehr beside itself",
        "Batch 1, compiled with other flags.",
        ("onnxruntime", "lehr-os", "lehr-strict", "lehr-avx2"),
        networks,
        alone=True,
        footprint=True,
    ),
    "elementwise": Table(
        "Elementwise functions",
        "One function of a tensor whose elements lie with the result's in a level of the cache, or in memory.",
        LOADERS_OF_TWO_INPUTS,
        elementwise,
    ),
    "cells": Table(
        "Reductions, softmax and normalisations",
        "One operator of a tensor.",
        LOADERS_OF_TWO_INPUTS,
        cells,
    ),
}


def _cached(name: str, make: Callable[[], ModelProto]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lehr"
    sources = [Path(__file__).with_name(file).read_bytes() for file in ("cases.py", "networks.py", "make_networks.py")]
    folder = cache / f"cases-{hashlib.sha256(b''.join(sources)).hexdigest()[:12]}" / name
    if not (folder / "model.onnx").exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = make()
        rng = np.random.default_rng(1)
        for i, value in enumerate(model.graph.input):
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            values = rng.standard_normal(shape, np.float32)
            np.save(folder / f"input_{i}.npy", np.abs(values) if value.name == POSITIVE else values)
        onnx.save(model, folder / "model.onnx")
    return folder


def _with_batch(name: str) -> ModelProto:
    """The cached network with another first dimension, which its reshapes name too."""
    model = onnx.load(cached_network(name) / "model.onnx")
    graph = model.graph
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = BATCH
    graph.ClearField("value_info")
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        sizes = numpy_helper.to_array(tensor)
        if tensor.name in shapes and sizes.size and sizes[0] == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.array([BATCH, *sizes[1:]], np.int64), tensor.name))
    return model


def _product(m: int, k: int, n: int, constant: bool) -> ModelProto:
    rng = np.random.default_rng(2)
    if constant:
        weights = {"w": rng.standard_normal((n, k), np.float32), "b": rng.standard_normal(n, np.float32)}
        return _model([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"x": [m, k]}, [m, n], weights)
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [m, k], "w": [k, n]}, [m, n], {})


def _layer(layer: Layer) -> ModelProto:
    rng = np.random.default_rng(3)
    nodes, weights, value = [], {}, "x"

    def conv(name: str, value: str, shape: tuple[int, ...], **attributes: object) -> str:
        weights[f"{name}_w"] = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        weights[f"{name}_b"] = rng.standard_normal(shape[0], np.float32)
        nodes.append(helper.make_node("Conv", [value, f"{name}_w", f"{name}_b"], [name], **attributes))
        nodes.append(helper.make_node("Relu", [name], [f"{name}_relu"]))
        return f"{name}_relu"

    if layer.inputs != 3:
        value = conv("spread", value, (layer.inputs, 3, 1, 1))
    shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
    pads = [layer.kernel // 2] * 4
    value = conv("layer", value, shape, pads=pads, strides=[layer.stride] * 2, group=layer.groups)
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"]))
    return _model(nodes, {"x": [1, 3, layer.plane, layer.plane]}, [1, layer.outputs, 1, 1], weights)


def _function(function: str, elements: int) -> ModelProto:
    x = POSITIVE if function == "Log" else "x"
    return _model([helper.make_node(function, [x], ["y"])], {x: [elements]}, [elements], {}, FUNCTIONS_OPSET)


def _reduction(reducer: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> ModelProto:
    nodes = [helper.make_node(reducer, ["x", "axes"], ["y"])]
    left = [1 if axis in axes else size for axis, size in enumerate(shape)]
    return _model(nodes, {"x": [*shape]}, left, {"axes": np.array(axes, np.int64)}, FUNCTIONS_OPSET)


def _normalisation(operator: str, shape: tuple[int, ...]) -> ModelProto:
    size = shape[-1] if operator == "LayerNormalization" else shape[1]
    rng = np.random.default_rng(4)
    weights = {"scale": rng.standard_normal(size, np.float32), "bias": rng.standard_normal(size, np.float32)}
    grouped = operator == "GroupNormalization"
    node = helper.make_node(operator, ["x", "scale", "bias"], ["y"], **({"num_groups": GROUPS} if grouped else {}))
    return _model([node], {"x": [*shape]}, [*shape], weights, GROUPS_OPSET if grouped else 17)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    output: list[int],
    weights: dict[str, np.ndarray],
    opset: int = 17,
) -> ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "model", values, [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

