"""The node tests of the onnx package, as backend test directories in a cache folder outside the checkout.

A directory holds `model.onnx` and `test_data_set_0/{input,output}_K.pb`, each a serialized TensorProto, SequenceProto or
OptionalProto as the graph's value at that place says. `index.json`, written last, says what each test is about.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, numpy_helper

INDEX = "index.json"
# CastLike and friends take their type from an input, which is listed anyway; these take it from an attribute.
TYPE_ATTRIBUTES = ("to", "dtype", "stash_type")


@dataclass(frozen=True)
class NodeTest:
    """What a test is about."""

    name: str
    operator: str  # the operator under test, also where the model holds its expansion into others
    body: list[str]  # operators in the model, subgraphs included
    types: list[str]  # element types of tensors, or "sequence" and "optional", that inputs, outputs and casts have


def cached_node_tests() -> tuple[Path, list[NodeTest]]:
    """The folder with all tests, and what they are, writing them first where they are missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lehr"
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = cache / f"node-tests-{onnx.__version__}-{key}"
    if not (folder / INDEX).exists():
        write_node_tests(folder)
    entries = json.loads((folder / INDEX).read_text())
    return folder, [NodeTest(**entry) for entry in entries]


def write_node_tests(folder: Path) -> int:
    """Writes every node test of the package below `folder`, replacing what is there under the same names."""
    cases = _load()
    operators = {case.name: case.model.graph.node[0].op_type for case in cases if "_expanded" not in case.name}
    tests = []
    for case in cases:
        _write_case(folder / case.name, case)
        nodes = list(_all_nodes(case.model.graph))
        values = [*case.model.graph.input, *case.model.graph.output]
        tests.append(
            NodeTest(
                name=case.name,
                operator=operators[case.name.split("_expanded")[0]],
                body=sorted({node.op_type for node in nodes}),
                types=sorted({_type_name(value.type) for value in values} | set(_types_of_attributes(nodes))),
            )
        )
    tests.sort(key=lambda test: test.name)
    (folder / INDEX).write_text(json.dumps([asdict(test) for test in tests], indent=0))
    return len(tests)


def _load() -> list[Any]:
    with warnings.catch_warnings():
        # The package computes infinities and NaNs on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        from onnx.backend.test.loader import load_node_model_tests

        return load_node_model_tests()


def _write_case(folder: Path, case: Any) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    graph = case.model.graph
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        for kind, values, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            if len(values) != len(infos):
                raise ValueError(f"{case.name}: {len(values)} {kind}s for the {len(infos)} of its graph")
            for place, (value, info) in enumerate(zip(values, infos)):
                (data / f"{kind}_{place}.pb").write_bytes(_to_proto(value, info).SerializeToString())


def _to_proto(value: Any, info: ValueInfoProto) -> Any:
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        elem = info.type.sequence_type.elem_type
        if not value:
            # numpy_helper cannot tell the element kind of an empty list.
            empty = onnx.SequenceProto(name=info.name)
            empty.elem_type = onnx.SequenceProto.TENSOR if elem.HasField("tensor_type") else onnx.SequenceProto.SEQUENCE
            return empty
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    if kind == "map_type":
        return numpy_helper.from_dict(value, info.name)
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(value, info.name)


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _all_nodes(inner)


def _type_name(kind: TypeProto) -> str:
    if kind.HasField("tensor_type"):
        return TensorProto.DataType.Name(kind.tensor_type.elem_type)
    return str(kind.WhichOneof("value")).removesuffix("_type")


def _types_of_attributes(nodes: list[NodeProto]) -> Iterator[str]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i:
                yield TensorProto.DataType.Name(attribute.i)
            if attribute.HasField("t"):
                yield TensorProto.DataType.Name(attribute.t.data_type)
