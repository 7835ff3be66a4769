"""What the machine does just now, by C programs: how far apart two CPUs are (ping_pong.c says why that matters), and what the
cores can do at most (ceilings.c). Neither is known where no C compiler is."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Between the 50-100 ns of cores that share a cache and the 300 ns and more of those that do not.
NEAR_NS = 150


@dataclass(frozen=True)
class Ceilings:
    """Of all threads together."""

    flops: dict[int, float]  # fused multiply-adds a second, twice, by the bits of the vectors; 0 where there are none of so many
    bytes: dict[int, float]  # read a second from a buffer of so many bytes


@dataclass(frozen=True)
class Probe:
    """The programs, or why there are none."""

    ping_pong: Path | None
    ceilings: Path | None
    missing: str = ""

    def round_trip_ns(self) -> float | None:
        if self.ping_pong is None:
            return None
        cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))[:2]]
        return float(_output([self.ping_pong, *cpus]))

    def ceilings_of(self, threads: int, sizes: list[int]) -> Ceilings | None:
        if self.ceilings is None:
            return None
        lines = _output([self.ceilings, str(threads), *map(str, sizes)]).splitlines()
        flops = [float(word) * 1e9 for word in lines[0].split()]
        return Ceilings(dict(zip((512, 256), flops)), {n: float(line) * 1e9 for n, line in zip(sizes, lines[1:])})


def _output(command: list[object]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def build(scratch: Path) -> Probe:
    compiler = shutil.which("cc")
    if compiler is None:
        return Probe(None, None, "no C compiler (cc) to build it with")
    ceilings = _compile(compiler, "ceilings", scratch) if platform.machine() == "x86_64" else None
    if len(os.sched_getaffinity(0)) < 2:
        return Probe(None, ceilings, "this process may use one CPU only")
    return Probe(_compile(compiler, "ping_pong", scratch), ceilings)


def _compile(compiler: str, name: str, scratch: Path) -> Path:
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([compiler, "-O3", "-pthread", source, "-o", scratch / name], check=True)
    return scratch / name


def distance(before: float | None, after: float | None) -> str:
    """Where the cores were during a round, by a probe before it and one after."""
    if before is None or after is None:
        return ""
    if max(before, after) < NEAR_NS:
        return "near"
    return "far" if min(before, after) >= NEAR_NS else "changing"
