"""Times lehr beside ONNX Runtime on the nine networks with random weights, and writes RESULTS.md.

    bench.py --lehr target/release/lehr [--networks resnet50] [--threads 1,2] [--rounds 5] [--seconds 3]

A round is one process of each peer, in turn (A B A B ...), so that a machine that slows down slows both. The figure of a
peer is the median over rounds of its median latency; the ratio is the median over rounds of lehr / ONNX Runtime, and the
spread is that ratio's least and greatest. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import onnxruntime
from peers_common import add_common_options, cached_network, call_lehr, compile_so

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True)
class Row:
    network: str
    threads: int
    lehr: list[dict[str, float]]  # a round each
    onnxruntime: list[dict[str, float]]

    def ratios(self) -> list[float]:
        return [a["median_ms"] / b["median_ms"] for a, b in zip(self.lehr, self.onnxruntime)]


def measure(lehr: Path, network: str, threads: int, rounds: int, seconds: float) -> Row:
    folder = cached_network(network)
    row = Row(network, threads, [], [])
    with tempfile.TemporaryDirectory(prefix="lehr-bench-") as scratch:
        so = Path(scratch) / "model.so"
        compile_so(lehr, folder / "model.onnx", so)
        for _ in range(rounds):
            ours = call_lehr(lehr, "bench", so, "--json", "--threads", threads, "--seconds", seconds)
            row.lehr.append(json.loads(ours))
            row.onnxruntime.append(_bench_onnxruntime(folder, threads, seconds))
    return row


def _bench_onnxruntime(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    script = Path(__file__).with_name("bench_onnxruntime.py")
    command = [sys.executable, script, folder / "model.onnx", folder / "input_0.npy"]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


HEADER = ("network", "threads", "lehr ms", "lehr p95", "lehr min", "ORT ms", "ORT p95", "ORT min", "lehr / ORT", "spread")


def _cells(row: Row) -> list[str]:
    peers = [f"{median(run[key] for run in runs):.2f}" for runs in (row.lehr, row.onnxruntime) for key in _KEYS]
    ratios = row.ratios()
    return [row.network, str(row.threads), *peers, f"{median(ratios):.2f}", f"{min(ratios):.2f} .. {max(ratios):.2f}"]


_KEYS = ("median_ms", "p95_ms", "min_ms")


def table(rows: list[Row]) -> list[str]:
    cells = [list(HEADER), *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    cells.insert(1, ["-" * width for width in widths[:1]] + ["-" * (width - 1) + ":" for width in widths[1:]])
    return [
        "| " + " | ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]) + " |"
        for line in cells
    ]


def page(rows: list[Row], options: argparse.Namespace) -> str:
    names = ",".join(options.networks)
    threads = ",".join(map(str, options.threads))
    return "\n".join(
        [
            "# lehr beside ONNX Runtime",
            "",
            f"{datetime.date.today()}, {_cpu()} ({os.cpu_count()} CPUs seen), ONNX Runtime {onnxruntime.__version__}, CPU, all",
            f"optimisations; lehr at {_commit()}, -O2, as .so; batch 1, f32, random weights. Milliseconds a run; below 1, lehr is",
            f"the faster. {options.rounds} rounds of {options.seconds:g} s for each peer, interleaved; medians over rounds.",
            "",
            *table(rows),
            "",
            "To reproduce:",
            "",
            "    cargo build --release",
            f'    "$(tests/venv.sh)" tests/peers/bench.py --lehr target/release/lehr --networks {names} \\',
            f"        --threads {threads} --rounds {options.rounds} --seconds {options.seconds:g}",
            "",
        ]
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown commit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring, for each peer and round")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the page to write (default: RESULTS.md beside this)")
    options = parser.parse_args()
    rows = []
    for network in options.networks:
        for threads in options.threads:
            rows.append(measure(options.lehr, network, threads, options.rounds, options.seconds))
            print(f"{network}, {threads} threads: {median(rows[-1].ratios()):.2f} of ONNX Runtime's time", flush=True)
    options.output.write_text(page(rows, options))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
