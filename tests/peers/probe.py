"""How far apart two CPUs are just now: near, far, or not known where no C compiler is. ping_pong.c says why that matters."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Between the 50-100 ns of cores that share a cache and the 300 ns and more of those that do not.
NEAR_NS = 150


@dataclass(frozen=True)
class Probe:
    """The program, or why there is none."""

    program: Path | None
    missing: str = ""

    def round_trip_ns(self) -> float | None:
        if self.program is None:
            return None
        cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))[:2]]
        done = subprocess.run([self.program, *cpus], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        return float(done.stdout)


def build(scratch: Path) -> Probe:
    if len(os.sched_getaffinity(0)) < 2:
        return Probe(None, "this process may use one CPU only")
    compiler = shutil.which("cc")
    if compiler is None:
        return Probe(None, "no C compiler (cc) to build it with")
    program = scratch / "ping_pong"
    source = Path(__file__).with_name("ping_pong.c")
    done = subprocess.run([compiler, "-O2", "-pthread", source, "-o", program], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return Probe(None, f"cc could not build it: {' '.join(done.stderr.split())[-200:]}")
    return Probe(program)


def distance(before: float | None, after: float | None) -> str:
    """Where the cores were during a round, by a probe before it and one after."""
    if before is None or after is None:
        return ""
    if max(before, after) < NEAR_NS:
        return "near"
    return "far" if min(before, after) >= NEAR_NS else "changing"
