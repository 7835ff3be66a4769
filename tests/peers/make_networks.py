"""Writes the nine networks of the onnx package to OUT/NAME.

    make_networks.py OUT            random weights: model.onnx and input_0.npy (1.3 GB in all)
    make_networks.py OUT --light    the package's own constants, as backend test directories with its expected outputs
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from networks import LIGHT, NETWORKS, light_model, logits_std, random_input, random_network
from onnx import numpy_helper

SEED = 20
# The tolerances that the package itself gives to these comparisons.
LIGHT_TOLERANCE = {"rtol": 1e-3, "atol": 1e-7}
LIGHT_RTOL = {"densenet121": 2e-3}


def main() -> None:
    options = _parse()
    for name in options.networks:
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        if options.light:
            write_light(folder, name)
            print(folder)
        else:
            std = write_random(folder, name, options.seed)
            print(f"{folder}: the logits' standard deviation is {std:.4f}", flush=True)


def write_random(folder: Path, name: str, seed: int) -> float:
    """Writes the network and an input; gives the standard deviation of its logits on it."""
    model = random_network(name, seed)
    image = random_input(model, seed)
    std = logits_std(model, image)
    if not abs(std - 1) < 0.01:
        raise ValueError(f"{name}: the logits have a standard deviation of {std}, not 1")
    np.save(folder / "input_0.npy", image)
    # The model goes last: who finds it finds all.
    onnx.save(model, folder / "model.onnx")
    return std


def write_light(folder: Path, name: str) -> None:
    """Writes the package's model and the data set that its test runner would: element k of an input is k / size.

    `data.json` holds the tolerances, where the package's own loader of test directories looks for them.
    """
    shutil.copy(LIGHT / f"light_{name}.onnx", folder / "model.onnx")
    tolerance = dict(LIGHT_TOLERANCE, rtol=LIGHT_RTOL.get(name, LIGHT_TOLERANCE["rtol"]))
    (folder / "data.json").write_text(json.dumps(tolerance))
    data = folder / "test_data_set_0"
    data.mkdir(exist_ok=True)
    graph = light_model(name).graph
    constants = {tensor.name for tensor in graph.initializer}
    for place, value in enumerate(v for v in graph.input if v.name not in constants):
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        size = int(np.prod(shape))
        image = (np.arange(size).reshape(shape) / size).astype(np.float32)
        (data / f"input_{place}.pb").write_bytes(numpy_helper.from_array(image, value.name).SerializeToString())
    for place in range(len(graph.output)):
        shutil.copy(LIGHT / f"light_{name}_output_{place}.pb", data / f"output_{place}.pb")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--light", action="store_true", help="the package's constants instead of random weights")
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS), help="names, comma-separated")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - set(NETWORKS))
    if unknown:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    return options


if __name__ == "__main__":
    main()
