"""Assembles the kernels of networks with ptxas, which needs no GPU, and reports registers and spills.

    assemble.py --lehr LEHR MODEL... [--targets sm_80,sm_90] [--precisions fp32,tf32,f16,bf16] [--table FILE.md]

MODEL is what `lehr compile` takes. Exit code 1 if a kernel does not assemble, or if one of a convolution or matrix product (a block
per tile) spills registers. ptxas comes from requirements.txt beside this file (tests/venv.sh gpu/requirements.txt).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nvidia.cuda_nvcc

PTXAS = Path(next(iter(nvidia.cuda_nvcc.__path__))) / "bin" / "ptxas"
# Seconds for one call of lehr or ptxas, which take a few.
LIMIT = 600
ENTRY = re.compile(r"Compiling entry function '(\S+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass
class Kernel:
    """What ptxas says of one kernel; one with a block for each tile is a convolution's or matrix product's."""

    name: str
    stack: int = 0
    spills: int = 0
    registers: int = 0
    tiled: bool = False


@dataclass
class Result:
    """What came of one model for one target."""

    model: str
    target: str
    precision: str
    kernels: list[Kernel]
    launches: int
    error: str = ""

    def bad(self) -> list[str]:
        if self.error:
            return [self.error]
        return [f"{k.name} spills {k.spills} bytes" for k in self.kernels if k.tiled and k.spills]


def main() -> int:
    options = _parse()
    work = [(m, t, p) for m in options.models for t in options.targets for p in options.precisions]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda w: assemble(options.lehr, *w), work))
    table = render(results)
    print(table)
    if options.table:
        options.table.write_text(table + "\n")
    bad = [f"{r.model} {r.target} {r.precision}: {b}" for r in results for b in r.bad()]
    print("\n".join(bad) if bad else "every kernel assembles, and no tiled one spills")
    return 1 if bad else 0


def assemble(lehr: str, model: str, target: str, precision: str) -> Result:
    result = Result(_name(model), target, precision, [], 0)
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "model.ptx"
        compiled = _run([lehr, "compile", model, "-o", ptx, "--target", target, "--gpu-precision", precision])
        if compiled.returncode:
            result.error = compiled.stderr.strip()
            return result
        plan = json.loads(ptx.with_suffix(".json").read_text())
        assembled = _run([PTXAS, f"-arch={target}", "-v", "-o", "/dev/null", ptx])
    if assembled.returncode:
        result.error = assembled.stderr.strip()[:2000]
        return result
    tiled = {k["name"] for k in plan["kernels"] if k["group"] == "tile"}
    result.launches = len(plan["steps"])
    result.kernels = parse(assembled.stderr, tiled)
    if len(result.kernels) != len(plan["kernels"]):
        result.error = f"ptxas reports {len(result.kernels)} of {len(plan['kernels'])} kernels"
    return result


def parse(log: str, tiled: set[str]) -> list[Kernel]:
    kernels: list[Kernel] = []
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            kernels.append(Kernel(entry[1], tiled=entry[1] in tiled))
        elif spills := SPILLS.search(line):
            kernels[-1].stack, kernels[-1].spills = int(spills[1]), int(spills[2]) + int(spills[3])
        elif registers := REGISTERS.search(line):
            kernels[-1].registers = int(registers[1])
    return kernels


def render(results: list[Result]) -> str:
    lines = [
        "| network | target | precision | launches | kernels | tiled | registers, tiled (most) | registers, others (most) | spills |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        tiled = [k.registers for k in r.kernels if k.tiled]
        others = [k.registers for k in r.kernels if not k.tiled]
        spills = "does not assemble" if r.error else str(sum(k.spills for k in r.kernels))
        cells = [r.model, r.target, r.precision, r.launches, len(r.kernels), len(tiled)]
        cells += [max(tiled, default=0), max(others, default=0), spills]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _name(model: str) -> str:
    path = Path(model)
    return path.parent.name if path.name == "model.onnx" else path.stem


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    words = [str(c) for c in command]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"{words[0]}: no end within {LIMIT} s")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--lehr", required=True)
    parser.add_argument("--targets", type=lambda s: s.split(","), default=["sm_80", "sm_90"])
    parser.add_argument("--precisions", type=lambda s: s.split(","), default=["fp32"])
    parser.add_argument("--table", type=Path, help="write the table to this file, too")
    parser.add_argument("--jobs", type=int, default=1, help="models at the same time [default: 1]")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
