"""The committed list of tests that pass, `passing.txt`: a line per test, its name and the back ends that pass it."""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).with_name("passing.txt")
HEADER = "# Node tests that pass, and by which back ends. Written by run.py --bless, held by run.py --check.\n"

Passing = dict[str, set[str]]  # back end -> names of tests


def read() -> Passing:
    passing: Passing = {}
    for line in PATH.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, *backends = line.split()
        for backend in backends:
            passing.setdefault(backend, set()).add(name)
    return passing


def write(passing: Passing) -> None:
    names = sorted(set().union(*passing.values()))
    lines = [" ".join([name, *(b for b, passed in passing.items() if name in passed)]) for name in names]
    PATH.write_text(HEADER + "".join(line + "\n" for line in lines))
