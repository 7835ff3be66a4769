"""Times lehr's .so beside ONNX Runtime, OpenVINO, MNN and ncnn on nine networks with random weights; writes RESULTS.md.

    python="$(tests/venv.sh requirements-peers.txt --no-deps)"
    $python tests/peers/bench.py --lehr target/release/lehr [--networks resnet50] [--threads 1,2] [--rounds 5] [--seconds 3]

A round is one process of each peer, in turn (A B C A B C ...), so that a machine that slows down slows all. With two threads
each round lies between two probes of how far the cores are from each other, and near and far rounds are told apart. A peer
whose first answer differs from the reference by more than its tolerance is shown as a dash with that reason, not as a time;
the exit code is 1 when lehr has a dash. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import convert
import numpy as np
import probe
from bench_page import Network, Round, page
from bench_peer import Measurement
from peers_common import TIMEOUT_S, add_common_options, cached_network

RESULTS = Path(__file__).with_name("RESULTS.md")
# lehr must be as near as agree.py asks. A peer is let off with more: MNN, at its high precision, is off by up to 5e-4, and
# leaving its times out would flatter lehr. A wrong answer, such as a softmax over another axis, is off by 1 and more.
LEHR_TOLERANCE = 1e-5
PEER_TOLERANCE = 1e-3


class PeerError(Exception):
    """A peer that gave no measurement, and why."""


def bench_network(name: str, options: argparse.Namespace, cores: probe.Probe) -> Network:
    folder = cached_network(name)
    network = Network(name)
    with tempfile.TemporaryDirectory(prefix="lehr-bench-") as scratch:
        files = _prepare(network, options, folder / "model.onnx", Path(scratch))
        for threads in options.threads:
            for _ in range(options.rounds):
                before = cores.round_trip_ns() if threads > 1 else None
                times = _one_round(network, files, folder / "input_0.npy", threads, options.seconds, Path(scratch))
                after = cores.round_trip_ns() if threads > 1 else None
                network.rounds.append(Round(threads, probe.distance(before, after), times))
    return network


def _prepare(network: Network, options: argparse.Namespace, model: Path, scratch: Path) -> dict[str, Path]:
    """The file of each peer that has one; ONNX Runtime goes first, being the reference that answers are compared with."""
    files = {}
    for peer in sorted(options.peers, key=lambda peer: peer != "onnxruntime") + ["lehr"]:
        folder = scratch / peer
        folder.mkdir()
        try:
            files[peer] = convert.prepare(peer, options.lehr, model, folder)
            network.file_mb[peer] = files[peer].stat().st_size / 1e6
        except convert.ConversionError as error:
            network.problems[peer] = str(error)
    return files


def _one_round(
    network: Network, files: dict[str, Path], image: Path, threads: int, seconds: float, scratch: Path
) -> dict[str, Measurement]:
    times = {}
    reference = None
    for peer, file in files.items():
        if peer in network.problems:
            continue
        output = scratch / f"{peer}.npy"
        try:
            times[peer] = _run_peer(peer, file, image, threads, seconds, output)
            answer = np.load(output)
            reference = answer if reference is None else reference
            error = relative_error(reference, answer)
            network.errors[peer] = max(network.errors.get(peer, 0.0), error)
            if not error <= (LEHR_TOLERANCE if peer == "lehr" else PEER_TOLERANCE):
                raise PeerError(f"its answer differs from the reference by {error:.1e} of the largest value")
        except PeerError as error:
            network.problems[peer] = str(error)
            times.pop(peer, None)
    return times


def _run_peer(peer: str, model: Path, image: Path, threads: int, seconds: float, output: Path) -> Measurement:
    script = Path(__file__).with_name("bench_peer.py")
    command = [sys.executable, script, peer, model, image, "--threads", threads, "--seconds", seconds, "--output", output]
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=output.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"took more than {TIMEOUT_S} s") from error
    # ncnn says on stderr what it misses.
    said = f" ({' '.join(done.stderr.split())[-150:]})" if done.stderr.strip() else ""
    if done.returncode != 0:
        raise PeerError(f"its process ended with code {done.returncode}{said}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if "problem" in answer:
        raise PeerError(f"{answer['problem']}{said}")
    return Measurement(**answer)


def relative_error(reference: np.ndarray, answer: np.ndarray) -> float:
    """max |answer - reference| / max |reference|, without regard to dimensions of 1, which ncnn drops."""
    if answer.size != reference.size or not np.isfinite(answer).all():
        return float("inf")
    difference = answer.ravel().astype(np.float64) - reference.ravel()
    return float(np.abs(difference).max() / np.abs(reference).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--peers", type=_peers, default=list(convert.PEERS), help="comma-separated (default: all four)")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring, for each peer and round")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the page to write (default: RESULTS.md beside this)")
    options = parser.parse_args()
    networks: list[Network] = []
    with tempfile.TemporaryDirectory(prefix="lehr-probe-") as scratch:
        cores = probe.build(Path(scratch))
        for name in options.networks:
            networks.append(bench_network(name, options, cores))
            # Written after each network: a long run that is stopped leaves what it has.
            options.output.write_text(page(networks, options, cores.missing))
            print(f"{name}: done", flush=True)
    print(options.output.read_text())
    return 1 if any("lehr" in network.problems for network in networks) else 0


def _peers(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(convert.PEERS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown)}; there are {', '.join(convert.PEERS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
