"""Times lehr's .so beside ONNX Runtime, OpenVINO, MNN and ncnn, and writes RESULTS.md.

    python="$(tests/venv.sh requirements-peers.txt --no-deps)"
    $python tests/peers/bench.py --lehr target/release/lehr [--tables networks] [--networks resnet50] [--threads 1,2] \
        [--rounds 3] [--seconds 0.6]

Tables (cases.py): nine networks with random weights at batch 1, some of them at batch 8, matrix products, single layers,
elementwise functions, reductions, softmax and normalisations (cells), and lehr beside itself with other flags (variants, avx2).
A round is one process of each peer, in turn (A B C A B C ...), so that a machine that slows down slows all; it runs one
network, or all the products or layers. With two threads each round lies between two probes of how far the cores are from each
other, and near and far rounds are told apart. A peer whose first answer differs from the reference by more than its tolerance
is shown as a dash with that reason, not as a time; the exit code is 1 when lehr has a dash. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cases
import convert
import numpy as np
import probe
from bench_page import Case, Result, Round, page
from bench_peer import ANSWER, VARIANTS, Measurement
from peers_common import TIMEOUT_S, add_common_options

RESULTS = Path(__file__).with_name("RESULTS.md")
# lehr must be as near as agree.py asks. A peer is let off with more: MNN, at its high precision, is off by up to 5e-4, and
# leaving its times out would flatter lehr. A wrong answer, such as a softmax over another axis, is off by 1 and more.
LEHR_TOLERANCE = 1e-5
PEER_TOLERANCE = 1e-3
# Products and layers take less time than networks, and are measured for this share of it.
SHORT = 0.4


def bench_table(table: cases.Table, options: argparse.Namespace, cores: probe.Probe, results: list[Result]) -> None:
    """Adds the table to the results and times its cases: one by one, or all in one process of each peer."""
    peers = [peer for peer in table.peers if peer in options.peers or peer in VARIANTS]
    folders = {name: folder for name, folder in table.cases(options.networks).items() if options.cases in name}
    found = [Case(name) for name in folders]
    results.append((table, peers, found))
    seconds = options.seconds * (1 if table.alone else SHORT)
    groups = [[case] for case in found] if table.alone else [found]
    for group in groups:
        _bench_group(table, group, {case.name: folders[case.name] for case in group}, peers, seconds, options, cores)
        # Written as it grows: a long run that is stopped leaves what it has.
        options.output.write_text(page(results, options, cores.missing))
        print(f"{table.title}: {', '.join(case.name for case in group)}: done", flush=True)


def _bench_group(
    table: cases.Table,
    group: list[Case],
    folders: dict[str, Path],
    peers: list[str],
    seconds: float,
    options: argparse.Namespace,
    cores: probe.Probe,
) -> None:
    with tempfile.TemporaryDirectory(prefix="lehr-bench-") as scratch:
        # ONNX Runtime goes first, being the reference that answers are compared with.
        ordered = [*sorted(peers, key=lambda peer: peer != "onnxruntime"), "lehr"]
        files = {peer: _prepare(peer, group, folders, options, Path(scratch) / peer) for peer in ordered}
        works = table.work() if table.work else {}
        sizes = sorted({works[case.name].bytes for case in group if case.name in works} - {0})
        for threads in options.threads:
            for _ in range(options.rounds):
                before = cores.round_trip_ns() if threads > 1 else None
                ceilings = cores.ceilings_of(threads, sizes) if works else None
                times = _one_round(group, files, folders, threads, seconds, Path(scratch))
                distance = probe.distance(before, cores.round_trip_ns() if threads > 1 else None)
                for case in group:
                    case.rounds.append(Round(threads, distance, times[case.name], ceilings, works.get(case.name)))
        for threads in options.threads if table.footprint else []:
            for _ in range(options.firsts):
                times = _one_round(group, files, folders, threads, 0, Path(scratch))
                for case in group:
                    case.launches.append((threads, times[case.name]))


def _prepare(
    peer: str, group: list[Case], folders: dict[str, Path], options: argparse.Namespace, scratch: Path
) -> dict[str, Path]:
    """The file of each case that the peer can load."""
    files = {}
    for number, case in enumerate(group):
        folder = scratch / str(number)
        folder.mkdir(parents=True)
        try:
            start = time.perf_counter()
            files[case.name] = convert.prepare(peer, options.lehr, folders[case.name] / "model.onnx", folder)
            case.prepare_s[peer] = time.perf_counter() - start
            case.file_mb[peer] = files[case.name].stat().st_size / 1e6
        except convert.ConversionError as error:
            case.problems[peer] = str(error)
    return files


def _one_round(
    group: list[Case],
    files: dict[str, dict[str, Path]],
    folders: dict[str, Path],
    threads: int,
    seconds: float,
    scratch: Path,
) -> dict[str, dict[str, Measurement]]:
    times: dict[str, dict[str, Measurement]] = {case.name: {} for case in group}
    references: dict[str, np.ndarray] = {}
    for peer, models in files.items():
        runnable = [case for case in group if peer not in case.problems]
        runs = [(models[case.name], folders[case.name], scratch / f"{peer}-{i}.npy") for i, case in enumerate(runnable)]
        for case, run, answer in zip(runnable, runs, _run_peer(peer, runs, threads, seconds)):
            if isinstance(answer, str):
                case.problems[peer] = answer
                continue
            output = np.load(run[2])
            error = relative_error(references.setdefault(case.name, output), output)
            case.errors[peer] = max(case.errors.get(peer, 0.0), error)
            if error <= (PEER_TOLERANCE if peer in convert.PEERS else LEHR_TOLERANCE):
                times[case.name][peer] = answer
            else:
                case.problems[peer] = f"its answer differs from the reference by {error:.1e} of the largest value"
    return times


def _run_peer(peer: str, runs: list[tuple[Path, Path, Path]], threads: int, seconds: float) -> list[Measurement | str]:
    """For each run a measurement, or why there is none."""
    if not runs:
        return []
    command = [sys.executable, Path(__file__).with_name("bench_peer.py"), peer, "--threads", threads, "--seconds", seconds]
    for run in runs:
        command += ["--case", *run]
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=runs[0][2].parent,
            # Threads that numpy starts, which spin for tens of milliseconds, would compete with first answers.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"took more than {TIMEOUT_S} s"] * len(runs)
    # ncnn says on stderr what it misses.
    said = f" ({' '.join(done.stderr.split())[-150:]})" if done.stderr.strip() else ""
    lines = [line.removeprefix(ANSWER) for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    answers = [json.loads(line) for line in lines]
    found = [f"{a['problem']}{said}" if "problem" in a else Measurement(**a) for a in answers]
    return found + [f"its process ended with code {done.returncode}{said}"] * (len(runs) - len(found))


def relative_error(reference: np.ndarray, answer: np.ndarray) -> float:
    """max |answer - reference| / max |reference|, without regard to dimensions of 1, which ncnn drops."""
    if answer.size != reference.size or not np.isfinite(answer).all():
        return float("inf")
    difference = answer.ravel().astype(np.float64) - reference.ravel()
    return float(np.abs(difference).max() / np.abs(reference).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--tables", type=_some_of(cases.TABLES), default=list(cases.TABLES), help="comma-separated (default: all)")
    parser.add_argument("--peers", type=_some_of(convert.PEERS), default=list(convert.PEERS), help="likewise")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5, help=f"of measuring a network, for each peer and round; {SHORT:g} of it for a product or layer")
    parser.add_argument("--cases", default="", help="only cases whose name contains this, like 'Softmax'")
    parser.add_argument("--firsts", type=int, default=4, help="more launches of each peer for the times to the first answer")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the page to write (default: RESULTS.md beside this)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lehr-probe-") as scratch:
        cores = probe.build(Path(scratch))
        results: list[Result] = []
        for name in options.tables:
            bench_table(cases.TABLES[name], options, cores, results)
    print(options.output.read_text())
    return 1 if any("lehr" in case.problems for _, _, found in results for case in found) else 0


def _some_of(known: object) -> object:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
