"""What agree.py and bench.py share: the cached random networks, and lehr as a program.

Of the command line they use

    lehr compile MODEL -o OUT.so -O2
    lehr run MODEL|OUT.so [-O2] --input NAME=FILE.npy --output-dir DIR --threads N     writes DIR/NAME.npy, "/" as "_"
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
from make_networks import SEED, write_random
from networks import NETWORKS

# vgg19 compiles and runs in seconds; this is for a hang.
TIMEOUT_S = 600


class LehrError(Exception):
    """lehr ended with an error; the text is what it said."""


def cached_network(name: str) -> Path:
    """The folder that holds the random network (model.onnx, input_0.npy), made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lehr"
    sources = [Path(__file__).with_name(file).read_bytes() for file in ("networks.py", "make_networks.py")]
    folder = cache / f"networks-{hashlib.sha256(b''.join(sources)).hexdigest()[:12]}" / name
    if not (folder / "model.onnx").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_random(folder, name, SEED)
    return folder


def call_lehr(lehr: Path, *arguments: object) -> str:
    """Standard output of `lehr arguments`."""
    command = [str(lehr), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LehrError(f"`lehr {arguments[0]}` took more than {TIMEOUT_S} s") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-300:]
        raise LehrError(f"`lehr {arguments[0]}` ended with code {done.returncode}: {said}")
    return done.stdout


def compile_so(lehr: Path, model: Path, out: Path, *flags: str) -> None:
    call_lehr(lehr, "compile", model, "-o", out, *flags)


def output_file(name: str) -> str:
    """The file that `lehr run --output-dir` writes for the value `name`."""
    return name.replace("/", "_") + ".npy"


def read_outputs(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    outputs = {}
    for name in names:
        file = folder / output_file(name)
        if not file.exists():
            raise LehrError(f"`lehr run` wrote no {file.name}")
        outputs[name] = np.load(file)
    return outputs


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lehr", type=binary, required=True, help="the lehr binary")
    parser.add_argument("--networks", type=_networks, default=list(NETWORKS), help="comma-separated (default: all nine)")


def binary(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} does not exist: cargo build --release")
    return path


def _networks(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(NETWORKS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    return names
