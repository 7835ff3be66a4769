"""Runs what prepare.py wrote on a GPU: with a driver, Python and numpy, and nothing else of NVIDIA's.

    on_gpu.py FOLDER [all]        everything below in this order, until it is done or the minutes are over
    on_gpu.py FOLDER check        every case against the CPU's outputs, by the library and by its launch plan
    on_gpu.py FOLDER bench        latency and throughput, beside PyTorch in eager mode under a CUDA graph, if torch and torchvision are there
    on_gpu.py FOLDER sanitize     compute-sanitizer's memcheck and racecheck over lenet5 and inception_v1
    on_gpu.py FOLDER compile      the benchmark beside torch.compile (max-autotune, minutes for each network)

Every step is a process with a limit of time. Results go to FOLDER/results: a step that was done on this device with these files is not done
again, so the same command goes on where an earlier one stopped, and TABLE.md there always shows what there is. Errors are relative to the
largest output. Times are medians of runs on tensors on the GPU, lehr's and PyTorch's in turn in one process. Exit code 1 if something
failed, is below its floor, or is still to do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from one import TORCHVISION
from report import BOUNDS, Result, table, verdict

ONE = Path(__file__).with_name("one.py")
SANITIZED = ("lenet5", "inception_v1")
# Seconds that a step may take. On a GPU the first two are done in a few.
LIMITS = {"check": 120, "bench": 120, "sanitize": 300, "compile": 400}
ALL = ("check", "bench", "sanitize", "compile")
# Those that the floors are for come first.
FIRST = ("resnet50", "inception_v1", "squeezenet", "vgg19")


@dataclass(frozen=True)
class Step:
    """What a process does, and how it is called."""

    kind: str
    case: Path
    precision: str
    # Of `sanitize`.
    tool: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.kind, self.tool, self.case.name, self.precision)))

    @property
    def file(self) -> str:
        return f"{self.name.replace(' ', '-')}.json"

    def command(self, quick: bool, sanitizer: str) -> list[str]:
        of_case = [str(self.case), self.precision]
        if self.kind in ("check", "sanitize"):
            check = [sys.executable, str(ONE), "check", *of_case]
            return [sanitizer, "--tool", self.tool, "--error-exitcode", "9", *check] if self.tool else check
        peer = {"bench": "eager", "compile": "compile"}[self.kind]
        return [sys.executable, str(ONE), "bench", *of_case, "--peer", peer] + ["--quick"] * quick


def main() -> int:
    options = _parse()
    # Whoever ends this ends the step as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by SIGTERM"))
    end = time.monotonic() + 60 * options.minutes
    every = all_cases(options)
    cases = [c for c in every if not options.only or c.name in options.only]
    steps = asked_for(cases, options)
    device, why = process([sys.executable, str(ONE), "device"], 120)
    if device is None:
        sys.exit(f"error: {why.removeprefix('error: ')}")
    machine = f"{device['device']}; {pytorch()}"
    print(machine, flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    results: dict[Step, Result] = {}
    for step in dict.fromkeys([s for kind in ALL for s in steps_of(kind, every, None)] + steps):
        result = Result(step.kind, step.case.name, step.precision, step.tool, about(step.case))
        # What is not asked for now is in the table all the same, if it is known.
        known = recall(step, result, machine, options)
        if step in steps or known:
            results[step] = result
        if not known:
            result.left_out("it was not its turn yet")
    for step in steps:
        do(step, results[step], machine, end, options)
        write(options.results / "TABLE.md", table(machine, list(results.values())))
    print(f"\n{options.results / 'TABLE.md'}")
    counts = Counter(verdict(results[s]) for s in steps)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    return int(set(counts) != {"ok"})


def asked_for(cases: list[Path], options: argparse.Namespace) -> list[Step]:
    """Ends the program if it is nothing, or if cases are missing that must be there."""
    kinds = [options.what] if options.what != "all" else list(ALL)
    if "compile" in kinds and (missing := pytorch()).startswith("PyTorch is not"):
        if options.what == "compile":
            sys.exit(f"error: {missing}")
        kinds.remove("compile")
    steps = {kind: steps_of(kind, cases, options.precisions) for kind in kinds}
    for kind in kinds:
        # Whoever asks for some cases knows that others are left out.
        if not steps[kind] and (options.what == kind or not options.only):
            wanted = " or ".join(SANITIZED) if kind == "sanitize" else "these precisions, or that PyTorch has"
            sys.exit(f"error: {options.folder} holds no case of {wanted}: there is nothing to {kind}")
    return [s for kind in kinds for s in steps[kind]]


def pytorch() -> str:
    """Its version; what it makes of the GPU, the steps find out."""
    try:
        return f"PyTorch {version('torch')}, torchvision {version('torchvision')}"
    except PackageNotFoundError as missing:
        return f"PyTorch is not compared: {missing.name} is not installed"


def recall(step: Step, result: Result, machine: str, options: argparse.Namespace) -> bool:
    """Whether a file says what came of the step on this machine, with these files."""
    file = options.results / step.file
    known = json.loads(file.read_text()) if file.exists() else {"key": None}
    if known["key"] == key(step, machine, options):
        result.values = known["values"]
        return True
    return False


def key(step: Step, machine: str, options: argparse.Namespace) -> str:
    files = [step.case / "case.json", step.case / f"{step.precision}.so"]
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    quick = options.quick and step.kind in ("bench", "compile")
    return hashlib.sha256(json.dumps([machine, quick, stamps]).encode()).hexdigest()


def do(step: Step, result: Result, machine: str, end: float, options: argparse.Namespace) -> None:
    """Does the step, unless a file says that it is done; the file is written last."""
    if not options.again and recall(step, result, machine, options):
        print(f"{step.name}: done before, {verdict(result)} {result.text()}", flush=True)
        return
    result.values, result.why, result.is_left_out = None, "", False
    left = end - time.monotonic()
    sanitizer = options.sanitizer or shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if left < 5:
        result.left_out(f"the {options.minutes:g} minutes are over; the same command goes on from here")
    elif step.tool and not shutil.which(sanitizer):
        result.left_out("there is no compute-sanitizer; it comes with CUDA's toolkit (--sanitizer PATH says where)")
    else:
        result.values, result.why = process(step.command(options.quick, sanitizer), min(LIMITS[step.kind], left))
        if result.values is not None:
            known = {"key": key(step, machine, options), "values": result.values}
            write(options.results / step.file, json.dumps(known))
    print(f"{step.name}: {verdict(result)} {result.text()}", flush=True)


def write(path: Path, text: str) -> None:
    """Whole, or as it was."""
    part = path.with_suffix(".partial")
    part.write_text(text)
    part.replace(path)


def process(command: list[str], limit: float) -> tuple[dict | None, str]:
    """What a process says in its last line, or why it says nothing."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as running:
        try:
            out, err = running.communicate(timeout=limit)
        except BaseException as error:
            # With those that it has started itself: compute-sanitizer's program, torch.compile's workers.
            os.killpg(running.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None, f"no end within {limit:.0f} s"
            raise
    if running.returncode:
        # compute-sanitizer writes what it found to standard output.
        lines = (out + err).strip().splitlines()
        shown = [line for line in lines if "error" in line.lower() or "hazard" in line.lower()][:4] or lines[-1:]
        code = running.returncode
        return None, " / ".join(shown) or (f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}")
    # Behind the json, compute-sanitizer sums up.
    said = [line for line in out.splitlines() if line.startswith("{")]
    return (json.loads(said[-1]), "") if said else (None, "it said nothing")


def about(case: Path) -> dict:
    return json.loads((case / "case.json").read_text())


def all_cases(options: argparse.Namespace) -> list[Path]:
    cases = [p.parent for p in options.folder.glob("*/case.json")]
    if not cases:
        sys.exit(f"error: {options.folder}: prepare.py has written no case here")
    if unknown := set(options.only or []) - {c.name for c in cases}:
        sys.exit(f"error: --only: there is no case {', '.join(sorted(unknown))}; there are {', '.join(sorted(c.name for c in cases))}")
    plain = {c: about(c)["network"].removeprefix("zoo:") for c in cases}
    rank = {c: FIRST.index(n) if n in FIRST else len(FIRST) for c, n in plain.items()}
    return sorted(cases, key=lambda c: (rank[c], c.name))


def steps_of(kind: str, cases: list[Path], only: list[str] | None) -> list[Step]:
    """In the order of the cases; of these precisions, or of all."""
    tools = ("memcheck", "racecheck") if kind == "sanitize" else ("",)
    if kind == "compile":
        cases = [c for c in cases if about(c)["network"] in TORCHVISION]
    if kind == "sanitize":
        of = {c: about(c) for c in cases}
        smallest = {n: min(a["batch"] for a in of.values() if a["network"] == n) for n in {a["network"] for a in of.values()}}
        cases = [c for c, a in of.items() if a["network"].removeprefix("zoo:") in SANITIZED and a["batch"] == smallest[a["network"]]]
    return [Step(kind, c, p, t) for c in cases for p in about(c)["precisions"] if not only or p in only for t in tools]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commas = lambda s: s.split(",")  # noqa: E731
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", nargs="?", choices=("all", *ALL), default="all")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing after these, and end what runs [default: 60]")
    parser.add_argument("--only", type=commas, help="cases, by the names of their folders: resnet50-b1,...")
    parser.add_argument("--precisions", type=commas, help=f"of {', '.join(BOUNDS)}; else all that were prepared")
    parser.add_argument("--results", type=Path, help="where results go [default: FOLDER/results]")
    parser.add_argument("--sanitizer", metavar="PATH", help="compute-sanitizer, where it is not on PATH")
    parser.add_argument("--again", action="store_true", help="do also what is done")
    parser.add_argument("--quick", action="store_true", help="time one run of each: shows that it works, measures nothing")
    options = parser.parse_args()
    options.results = options.results or options.folder / "results"
    return options


if __name__ == "__main__":
    sys.exit(main())
