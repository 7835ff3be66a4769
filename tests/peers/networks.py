"""The nine networks in the onnx package, with seeded random weights in place of their constants.

The package's `light` models hold the real architectures, and weights that are all 0.02: enough to compare an output with the
one that lies beside each, not enough to find a transposed filter. Here every convolution and matrix gets He-scaled normal
weights, every normalisation random statistics, and the classifier is scaled so that the logits of `random_input` have unit
variance, because a saturated softmax hides every error. The same seed gives the same bits.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

NETWORKS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# From IR version 4 on an initializer need not be a graph input, so that both peers may treat it as a constant.
IR_VERSION = 8


def light_model(name: str) -> ModelProto:
    return onnx.load(LIGHT / f"light_{name}.onnx")


def random_network(name: str, seed: int) -> ModelProto:
    """The network `name` with random weights; inputs other than the image are gone."""
    model = light_model(name)
    graph = model.graph
    shapes = _weight_shapes(graph)
    weights = {weight: _random_weight(graph, weight, shape, seed) for weight, shape in shapes.items()}
    _replace_weights(model, weights)
    _scale_classifier(model, random_input(model, seed))
    onnx.checker.check_model(model)
    return model


def random_input(model: ModelProto, seed: int) -> np.ndarray:
    """A standard normal value for the model's only input."""
    (image,) = model.graph.input
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    return np.random.default_rng([seed, zlib.crc32(b"input")]).standard_normal(shape, np.float32)


def logits_std(model: ModelProto, image: np.ndarray) -> float:
    """Standard deviation, over the classes, of what goes into the final softmax."""
    return float(_run(model, _logits(model.graph), image).std())


def _weight_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Every constant of floats that some node reads: initializers, and those filled by ConstantOfShape."""
    used = {name for node in graph.node for name in node.input}
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {}
    for name, tensor in initializers.items():
        if name in used and tensor.data_type == TensorProto.FLOAT:
            shapes[name] = tuple(tensor.dims)
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(n) for n in numpy_helper.to_array(initializers[node.input[0]]))
    return shapes


@dataclass(frozen=True)
class _Use:
    """The operator that a weight finally goes into, and as which of its inputs."""

    node: NodeProto
    place: int


def _use(graph: GraphProto, weight: str) -> _Use:
    for node in graph.node:
        if weight in node.input:
            if node.op_type in ("Reshape", "Unsqueeze"):
                return _use(graph, node.output[0])
            return _Use(node, list(node.input).index(weight))
    raise ValueError(f"weight {weight} is not used")


def _random_weight(graph: GraphProto, weight: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    # Seeded by name: a weight does not depend on how many others there are or in which order.
    rng = np.random.default_rng([seed, zlib.crc32(weight.encode())])
    use = _use(graph, weight)
    role = (use.node.op_type, use.place)
    if role == ("Conv", 1):
        return _normal(rng, shape, np.sqrt(2 / np.prod(shape[1:])))
    if role == ("Gemm", 1):
        transposed = any(a.name == "transB" and a.i for a in use.node.attribute)
        return _normal(rng, shape, np.sqrt(2 / shape[-1 if transposed else -2]))
    if role in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 0), ("Mul", 1)):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if role in (("Conv", 2), ("Gemm", 2), ("BatchNormalization", 2), ("BatchNormalization", 3), ("Add", 0), ("Add", 1)):
        return _normal(rng, shape, 0.1)
    raise ValueError(f"{weight} is input {use.place} of {use.node.op_type}: no distribution is chosen for that")


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> np.ndarray:
    return rng.standard_normal(shape, np.float32) * np.float32(std)


def _replace_weights(model: ModelProto, weights: dict[str, np.ndarray]) -> None:
    """Makes `weights` the initializers of these names, and drops what nothing reads any more."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used and tensor.name not in weights]
    constants = {tensor.name for tensor in graph.initializer} | set(weights)
    inputs = [value for value in graph.input if value.name not in constants]
    for field, values in (("node", nodes), ("initializer", kept), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    model.ir_version = IR_VERSION


def _logits(graph: GraphProto) -> str:
    last = graph.node[-1]
    return last.input[0] if last.op_type == "Softmax" else last.output[0]


def _scale_classifier(model: ModelProto, image: np.ndarray) -> None:
    """Divides the last layer's weights by the logits' deviation: what follows that layer (Relu, pooling) is homogeneous."""
    graph = model.graph
    layer = next(node for node in reversed(graph.node) if node.op_type in ("Conv", "Gemm"))
    std = np.float32(logits_std(model, image))
    parameters = {_source(graph, name) for name in layer.input[1:]}
    for tensor in graph.initializer:
        if tensor.name in parameters:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / std, tensor.name))


def _source(graph: GraphProto, name: str) -> str:
    """The initializer behind a reshaped weight."""
    for node in graph.node:
        if name in node.output:
            return _source(graph, node.input[0])
    return name


def _run(model: ModelProto, output: str, image: np.ndarray) -> np.ndarray:
    probed = ModelProto()
    probed.CopyFrom(model)
    if output not in {value.name for value in probed.graph.output}:
        probed.graph.output.append(onnx.helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {model.graph.input[0].name: image})[0]
