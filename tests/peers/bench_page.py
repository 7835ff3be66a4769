"""What bench.py found, as a page of Markdown tables."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import geometric_mean, median

from bench_peer import VARIANTS, Measurement
from cases import Table, Work
from probe import NEAR_NS, Ceilings

TITLES = {
    "lehr": "lehr", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "mnn": "MNN", "ncnn": "ncnn",
    "lehr-os": "lehr -Os", "lehr-strict": "strict", "lehr-avx2": "AVX2", "lehr-avx2-strict": "AVX2 strict",
}  # fmt: skip


@dataclass(frozen=True)
class Round:
    threads: int
    distance: str  # of the cores: near, far, changing, or nothing with one thread or without a probe
    times: dict[str, Measurement]
    ceilings: Ceilings | None = None
    work: Work | None = None

    def setting(self) -> str:
        return f"{self.threads} {self.distance}".strip()

    def share(self, peer: str) -> float | None:
        """What the cores could do it in (all multiply-adds, or all reading of weights, at their most), by what it took."""
        if peer not in self.times or self.ceilings is None or self.work is None:
            return None
        widest = 256 if "avx2" in peer or not self.ceilings.flops[512] else 512
        reading = self.work.bytes / self.ceilings.bytes[self.work.bytes] if self.work.bytes else 0.0
        floor = max(self.work.flops / self.ceilings.flops[widest], reading)
        return floor / (self.times[peer].median_ms * 1e-3)


@dataclass
class Case:
    name: str
    rounds: list[Round] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)  # peer -> why it has a dash
    errors: dict[str, float] = field(default_factory=dict)  # peer -> worst difference from the reference
    file_mb: dict[str, float] = field(default_factory=dict)
    prepare_s: dict[str, float] = field(default_factory=dict)  # compiling or converting
    # Threads and times of launches for the first answer's time alone.
    launches: list[tuple[int, dict[str, Measurement]]] = field(default_factory=list)

    def median(self, setting: str, peer: str, key: str = "median_ms") -> float | None:
        """Over the rounds of that setting; none for a peer that has a problem."""
        values = [getattr(r.times[peer], key) for r in self.rounds if r.setting() == setting and peer in r.times]
        return median(values) if values and peer not in self.problems else None

    def ratio(self, setting: str, peer: str, key: str = "median_ms") -> float | None:
        """The median over rounds of peer / lehr: above 1, lehr is the better."""
        pairs = [(r.times.get(peer), r.times.get("lehr")) for r in self.rounds if r.setting() == setting]
        ratios = [getattr(a, key) / getattr(b, key) for a, b in pairs if a and b]
        return median(ratios) if ratios and not {peer, "lehr"} & set(self.problems) else None

    def share(self, setting: str, peer: str) -> float | None:
        shares = [share for r in self.rounds if r.setting() == setting and (share := r.share(peer)) is not None]
        return median(shares) if shares else None

    def first_ms(self, threads: int, peer: str) -> float | None:
        launches = [*((r.threads, r.times) for r in self.rounds), *self.launches]
        values = [times[peer].first_ms for its_threads, times in launches if its_threads == threads and peer in times]
        return median(values) if values and peer not in self.problems else None

    def best_ratio(self, setting: str, peers: list[str]) -> float | None:
        ratios = [ratio for peer in peers if (ratio := self.ratio(setting, peer)) is not None]
        return min(ratios) if ratios else None


# A table, the peers in it, and its cases.
Result = tuple[Table, list[str], list[Case]]


def page(results: list[Result], options: argparse.Namespace, no_probe: str) -> str:
    peers: list[str] = options.peers
    versions = ", ".join(f"{TITLES[peer]} {_version(peer)}" for peer in peers)
    lines = [
        "# lehr beside its peers",
        "",
        f"{datetime.date.today()}, {_cpu()} ({os.cpu_count()} CPUs seen). {versions};",
        f"lehr at {_commit()}, -O2, as .so.",
        "f32 everywhere, but that lehr reads the weights of large fully connected layers in 25 bits (ARCHITECTURE.md, 4; --numerics strict",
        "does not); random weights and inputs. Medians over rounds; rounds for each peer, in a process of its own,",
        f"interleaved: {options.rounds} of {options.seconds:g} s.",
        "",
        "Tables of times: milliseconds a run, then how many times faster lehr is (median over rounds of the peer's time / lehr's);",
        "the last column is against the best peer.",
        f"No probe of the cores' distance: {no_probe}." if no_probe else _PROBE_NOTE,
        "",
    ]
    for shown, peers_of_table, found in results:
        lines += [f"## {shown.title}", "", shown.note, *([_SHARE_NOTE] if shown.work else []), ""]
        lines += [*_latency(found, peers_of_table, shares=shown.work is not None), ""]
        if shown.footprint:
            lines += [
                f"## {shown.title}: first answer",
                "",
                f"From the load to the first answer: ms, medians of {options.rounds + options.firsts} launches, then how many times sooner lehr's is;",
                "numpy, which loads the inputs, has no threads of its own meanwhile.",
                "",
                *_first_answers(found, peers_of_table, options.threads),
                "",
                f"## {shown.title}: memory and file",
                "",
                "Peak memory while running, beyond what Python itself holds (MB); the model's file (MB, a peer's own libraries not",
                f"counted), and compiling it (s). Threads: {options.threads[0]}.",
                "",
                *_footprint(found, peers_of_table, options.threads[0]),
                "",
            ]
    lines += [
        "## Agreement",
        "",
        f"Worst max |answer - reference| / max |reference|; the reference is {TITLES[_reference(peers)]}'s answer.",
        "",
        *_agreement([case for _, _, found in results for case in found], peers),
        *_problems([case for _, _, found in results for case in found]),
        "",
        "## To reproduce",
        "",
        "    cargo build --release",
        '    python="$(tests/venv.sh requirements-peers.txt --no-deps)"',
        f"    $python tests/peers/bench.py --lehr target/release/lehr --tables {','.join(options.tables)} \\",
        f"        --networks {','.join(options.networks)} \\",
        f"        --peers {','.join(peers)} --threads {','.join(map(str, options.threads))} "
        f"--rounds {options.rounds} --seconds {options.seconds:g}",
        "",
    ]
    return "\n".join(lines)


_PROBE_NOTE = (
    f"With two threads, near and far say how far apart the cores were (a cache line's round trip below {NEAR_NS} ns, or not),\n"
    "by a probe before and after each round; changing, that the two differed."
)


_SHARE_NOTE = (
    "Shares of the ceiling: the time that all multiply-adds take at the cores' peak with vectors of that width, or reading f32\n"
    "weights of that size (whichever is longer), divided by the time; ceilings.c measures both in each round. Algorithms with\n"
    "fewer operations, and weights of 25 bits, can have more than 1."
)


def _latency(networks: list[Case], peers: list[str], shares: bool) -> list[str]:
    ours = ["lehr", *(peer for peer in peers if peer in VARIANTS)]
    others = [peer for peer in peers if peer not in VARIANTS]
    timed = [f"{TITLES[peer]} ms" for peer in ["lehr", *peers]]
    best = ["/ best"] if others else []
    ceilings = [f"{TITLES[peer]}: share" for peer in ours] if shares else []
    lines = [["model", "threads", *timed, *(f"/ {TITLES[peer]}" for peer in peers), *best, *ceilings]]
    means: dict[str, list[list[float | None]]] = {}
    for network in networks:
        for setting in sorted({r.setting() for r in network.rounds}):
            times = [network.median(setting, peer) for peer in ["lehr", *peers]]
            ratios = [network.ratio(setting, peer) for peer in peers]
            ratios += [network.best_ratio(setting, others)] if others else []
            ratios += [network.share(setting, peer) for peer in ours] if shares else []
            means.setdefault(setting, []).append(ratios)
            lines.append([network.name, setting, *(_number(t) for t in times), *(_number(r) for r in ratios)])
    for setting in sorted(means):
        columns = [[r for r in column if r is not None] for column in zip(*means[setting])]
        cells = [_number(geometric_mean(column) if column else None) for column in columns]
        lines.append(["geometric mean", setting, *([""] * (len(peers) + 1)), *cells])
    return table(lines)


def _first_answers(networks: list[Case], peers: list[str], threads: list[int]) -> list[str]:
    all_peers = ["lehr", *peers]
    lines = [["network", "threads", *(f"{TITLES[p]} ms" for p in all_peers), *(f"/ {TITLES[p]}" for p in peers)]]
    for network in networks:
        for count in threads:
            times = [network.first_ms(count, peer) for peer in all_peers]
            sooner = [time / times[0] if time and times[0] else None for time in times[1:]]
            lines.append([network.name, str(count), *(_number(time, 1) for time in times), *(_number(s, 1) for s in sooner)])
    return table(lines)


def _footprint(networks: list[Case], peers: list[str], threads: int) -> list[str]:
    all_peers = ["lehr", *peers]
    compiled = ["lehr", *(peer for peer in peers if peer in VARIANTS)]
    sized = [*compiled, *(peer for peer in peers if peer == "onnxruntime")]
    lines = [
        [
            "network",
            *(f"{TITLES[p]} peak" for p in all_peers),
            *(f"{TITLES[p]} file" for p in sized),
            *(f"{TITLES[p]} compiles" for p in compiled),
        ]
    ]
    for network in networks:
        # One thread's rounds have no distance; with more threads the first setting stands for all.
        setting = next((r.setting() for r in network.rounds if r.threads == threads), "")
        cells = [network.median(setting, peer, "peak_mb") for peer in all_peers]
        cells += [network.file_mb.get(peer) for peer in sized]
        cells += [network.prepare_s.get(peer) for peer in compiled]
        lines.append([network.name, *(_number(cell, 1) for cell in cells)])
    return table(lines)


def _agreement(networks: list[Case], peers: list[str]) -> list[str]:
    others = [peer for peer in TITLES if any(peer in network.errors for network in networks) and peer != _reference(peers)]
    lines = [["model", *(TITLES[peer] for peer in others)]]
    for network in networks:
        errors = [network.errors.get(peer) for peer in others]
        lines.append([network.name, *("-" if error is None else f"{error:.1e}" for error in errors)])
    return table(lines)


def _problems(networks: list[Case]) -> list[str]:
    """A reason for every dash."""
    reasons = [f"- {n.name}, {TITLES[peer]}: {reason}" for n in networks for peer, reason in n.problems.items()]
    return ["", "Dashes above:", "", *reasons] if reasons else []


def _reference(peers: list[str]) -> str:
    return "onnxruntime" if "onnxruntime" in peers else peers[0]


def table(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * width for width in widths[:1]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return [
        "| " + " | ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]) + " |"
        for line in [lines[0], rule, *lines[1:]]
    ]


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _version(peer: str) -> str:
    try:
        return version(peer)
    except PackageNotFoundError:
        return "(not installed)"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown commit"
