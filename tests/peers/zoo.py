"""Compares lehr with ONNX Runtime on the networks that lehr builds in code.

    zoo.py --lehr target/release/lehr              every line of tests/zoo.txt, and those at full size that take a second or two
    zoo.py --lehr target/release/lehr --full       every network at its full size (minutes, 1.5 GB of scratch)

`lehr zoo NAME -o FILE` writes a network. The onnx checker accepts it, ONNX Runtime runs it, and lehr runs the file and the network
itself. An error is max |ours - theirs| / max |theirs|; a network agrees when no error is above 1e-5 and both runs of lehr give
the same bits. The exit code is 1 when one does not agree.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from agree import TOLERANCE, relative_error
from peers_common import LehrError, binary, call_lehr, read_outputs

LIST = Path(__file__).parent.parent / "zoo.txt"
BATCH = 2
QUICK_AT_FULL_SIZE = (
    "inception_v1", "resnet18", "resnet50", "senet", "densenet121", "squeezenet", "mobilenet", "siren", "hnet",
)  # fmt: skip


def small_networks() -> list[str]:
    lines = LIST.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def full_networks(lehr: Path) -> list[str]:
    return [network["name"] for network in json.loads(call_lehr(lehr, "zoo", "--json"))]


def compare(lehr: Path, spec: str, batch: int, scratch: Path) -> float:
    """The largest error of any output; infinite where lehr differs from itself."""
    model = scratch / "model.onnx"
    call_lehr(lehr, "zoo", spec, "-o", model)
    onnx.checker.check_model(str(model), full_check=True)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    shape = [batch if isinstance(n, str) else n for n in source.shape]
    value = np.random.default_rng(len(spec)).standard_normal(shape, np.float32)
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, {source.name: value})))
    np.save(scratch / "input.npy", value)
    runs = []
    for kind, what in (("file", model), ("built", f"zoo:{spec}")):
        out = scratch / kind
        call_lehr(lehr, "run", what, "--input", f"{source.name}={scratch / 'input.npy'}", "--output-dir", out)
        runs.append(read_outputs(out, names))
    if any(runs[0][name].tobytes() != runs[1][name].tobytes() for name in names):
        return float("inf")
    return max(relative_error(expected[name], runs[0][name]) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lehr", type=binary, required=True, help="the lehr binary")
    parser.add_argument("--full", action="store_true", help="full sizes")
    options = parser.parse_args()
    specs = full_networks(options.lehr) if options.full else [*small_networks(), *QUICK_AT_FULL_SIZE]
    disagree = 0
    for spec in specs:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lehr-zoo-") as scratch:
            try:
                error = compare(options.lehr, spec, 1 if options.full else BATCH, Path(scratch))
                said = f"{error:8.1e}"
            except LehrError as problem:
                error, said = float("inf"), str(problem)
        agrees = error <= TOLERANCE
        disagree += not agrees
        word = "agrees" if agrees else "DIFFERS"
        print(f"{spec:<62} {time.monotonic() - start:5.1f} s  {word:<7}  {said}", flush=True)
    print(f"{len(specs) - disagree} agree, {disagree} do not (tolerance {TOLERANCE:g})")
    return 1 if disagree else 0


if __name__ == "__main__":
    sys.exit(main())
