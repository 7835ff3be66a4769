"""Runs `lehr test` on directories and reads its report.

The contract with the command line: `lehr test DIR... --backend eval|jit|so --jobs N --json` prints one object,

    {"tests": [{"name": "test_abs", "dir": "...", "status": "passed", "reason": "", "seconds": 0.01}, ...],
     "passed": N, "failed": N, "skipped": N}

to standard output, and nothing else there. `name` is the directory's last component; `status` is "passed", "failed" (wrong
values, an error, a crash, a hang) or "skipped" (lehr says that it cannot do this model); `reason` is one sentence unless it
passed. The exit code is 0 when nothing failed and 1 when something did; anything else means that there is no report.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

STATUSES = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Outcome:
    status: str
    reason: str
    seconds: float


class NoReport(Exception):
    """`lehr test` did not give a usable report."""


def lehr_test(
    lehr: Path, folder: Path, names: list[str], backend: str, jobs: int, target: str | None = None
) -> dict[str, Outcome]:
    """The outcome of every test of `names`, which are directories in `folder`; on a GPU if there is a target."""
    command = [str(lehr), "test", *names, "--backend", backend, "--jobs", str(jobs), "--json"]
    if target:
        command += ["--target", target]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise NoReport(f"`lehr test --backend {backend}` ended with code {done.returncode}")
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise NoReport(f"`lehr test --backend {backend} --json` printed no JSON: {error}") from error
    outcomes = {}
    for test in report["tests"]:
        if test["status"] not in STATUSES:
            raise NoReport(f"{test['name']}: unknown status {test['status']!r}")
        outcomes[test["name"]] = Outcome(test["status"], test["reason"], test["seconds"])
    _check_complete(report, outcomes, names, backend)
    return outcomes


def _check_complete(report: dict, outcomes: dict[str, Outcome], names: list[str], backend: str) -> None:
    missing = sorted(set(names) - set(outcomes))
    if missing:
        raise NoReport(f"backend {backend}: no outcome for {len(missing)} tests, such as {missing[0]}")
    for status in STATUSES:
        counted = sum(outcome.status == status for outcome in outcomes.values())
        if report[status] != counted:
            raise NoReport(f"backend {backend}: {report[status]} tests {status} by the sum, {counted} by the list")
