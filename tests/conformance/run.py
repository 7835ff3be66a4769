"""Runs ONNX's node tests through `lehr test` on every back end.

    run.py --lehr target/release/lehr            prints the sums
    run.py --lehr target/release/lehr --bless    also writes NODE_TESTS.md and passing.txt
    run.py --lehr target/release/lehr --check    fails when a test of passing.txt does not pass

With --target sm_80, on a GPU; LEHR_CUDA_DRIVER may name the stand-in for its driver (tests/cuda-sim).

What `lehr test --json` must print is said in lehr_test.py. Builds nothing; the tests are written to the cache on first use.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import onnx
import passing_list
import table
from lehr_test import NoReport, lehr_test
from node_tests import cached_node_tests

BACKENDS = ("eval", "jit", "so")


def main() -> int:
    options = _parse()
    folder, tests = cached_node_tests()
    names = [test.name for test in tests]
    outcomes: table.Outcomes = {}
    for backend in options.backends:
        start = time.monotonic()
        outcomes[backend] = lehr_test(options.lehr, folder, names, backend, options.jobs, options.target)
        print(f"{backend}: {len(names)} tests in {time.monotonic() - start:.0f} s", flush=True)
    for line in table.summary(tests, outcomes):
        print(line)
    passing = {backend: {n for n, o in by_test.items() if o.status == "passed"} for backend, by_test in outcomes.items()}
    if options.bless:
        passing_list.write(passing)
        table.PATH.write_text(table.render(onnx.__version__, tests, outcomes))
        print(f"wrote {passing_list.PATH} and {table.PATH}")
    if options.check:
        return _check(passing, outcomes)
    return 0


def _check(passing: passing_list.Passing, outcomes: table.Outcomes) -> int:
    if not passing_list.PATH.exists():
        print(f"{passing_list.PATH} is missing: run with --bless first", file=sys.stderr)
        return 1
    listed = passing_list.read()
    regressed = 0
    for backend, passed in passing.items():
        expected = listed.get(backend, set())
        for name in sorted(expected - passed):
            regressed += 1
            outcome = outcomes[backend].get(name)
            print(f"{name} ({backend}): {outcome.status + ': ' + outcome.reason if outcome else 'no such test'}")
        new = len(passed - expected)
        if new:
            print(f"{backend}: {new} tests pass that are not listed; --bless lists them")
    print(f"{regressed} listed tests do not pass")
    return 1 if regressed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lehr", type=_binary, required=True, help="the lehr binary")
    parser.add_argument("--backends", type=_backends, default=list(BACKENDS), help="comma-separated (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tests at once (default: one per CPU)")
    parser.add_argument("--target", help="the GPU to compile for: sm_80 or sm_90 (back ends jit and so)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--bless", action="store_true", help="rewrite the table and the list")
    mode.add_argument("--check", action="store_true", help="fail when a listed test does not pass")
    options = parser.parse_args()
    if options.bless and (options.backends != list(BACKENDS) or options.target):
        parser.error("--bless needs all back ends on the CPU, as it rewrites what every one of them passes")
    if options.target and "eval" in options.backends:
        parser.error("--target is for compiled code: say --backends jit, so, or both")
    return options


def _binary(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} does not exist: cargo build --release")
    return path


def _backends(text: str) -> list[str]:
    backends = text.split(",")
    unknown = set(backends) - set(BACKENDS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no back end {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    return backends


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoReport as error:
        sys.exit(f"run.py: {error}")
