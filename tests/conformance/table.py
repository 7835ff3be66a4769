"""NODE_TESTS.md: what passes by operator, and why the rest does not."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from in_scope_operators import OPERATORS, out_of_scope
from lehr_test import Outcome
from node_tests import NodeTest

PATH = Path(__file__).with_name("NODE_TESTS.md")
NAMES_PER_REASON = 8

Outcomes = dict[str, dict[str, Outcome]]  # back end -> test -> outcome


def promised(test: NodeTest) -> bool:
    """Whether the test is one that lehr promises to pass."""
    return out_of_scope(test.operator, test.body, test.types) is None


def summary(tests: list[NodeTest], outcomes: Outcomes) -> list[str]:
    """The closing sums, a line per back end."""
    names = [test.name for test in tests]
    in_scope = [test.name for test in tests if promised(test)]
    return [
        f"{backend}: {_passed(names, by_test)} of all {len(names)}; in scope: {_passed(in_scope, by_test)} of {len(in_scope)}"
        for backend, by_test in outcomes.items()
    ]


def render(onnx_version: str, tests: list[NodeTest], outcomes: Outcomes) -> str:
    """The whole page."""
    lines = [
        "# ONNX node tests",
        "",
        f"Node tests of onnx {onnx_version} that pass, by the operator they are about and by back end. Written by",
        "`tests/conformance/run.py --bless`; do not edit. A test is in scope when its operator, every operator of its model",
        "and every type it uses is listed in `in_scope_operators.py`; `*` marks the operators listed there.",
        "",
        *_operator_table(tests, outcomes),
        "",
        "## Sums",
        "",
        *(f"- {line}" for line in summary(tests, outcomes)),
        "",
        "## In scope, and does not pass",
        "",
        *_reasons([test for test in tests if promised(test)], outcomes),
        "",
        "## Out of scope, and does not pass",
        "",
        *_reasons([test for test in tests if not promised(test)], outcomes),
    ]
    return "\n".join(lines) + "\n"


def _operator_table(tests: list[NodeTest], outcomes: Outcomes) -> list[str]:
    by_operator: dict[str, list[NodeTest]] = defaultdict(list)
    for test in tests:
        by_operator[test.operator].append(test)
    rows = [["operator", "tests", "in scope", *outcomes]]
    for operator, group in sorted(by_operator.items()):
        rows.append(_table_row(operator + " *" * (operator in OPERATORS), group, outcomes))
    rows.append(_table_row("all", tests, outcomes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths[:1]] + ["-" * (width - 1) + ":" for width in widths[1:]])
    return ["| " + " | ".join(_align(row, widths)) + " |" for row in rows]


def _table_row(title: str, group: list[NodeTest], outcomes: Outcomes) -> list[str]:
    names = [test.name for test in group]
    passed = [str(_passed(names, by_test)) for by_test in outcomes.values()]
    return [title, str(len(group)), str(sum(map(promised, group))), *passed]


def _align(row: list[str], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]


def _passed(names: list[str], by_test: dict[str, Outcome]) -> int:
    return sum(by_test[name].status == "passed" for name in names)


def _reasons(tests: list[NodeTest], outcomes: Outcomes) -> list[str]:
    """Failures and skips grouped by their reason, the most frequent first."""
    groups: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for backend, by_test in outcomes.items():
        for test in tests:
            outcome = by_test[test.name]
            if outcome.status != "passed":
                groups[outcome.status, _generalise(outcome.reason)][test.name].append(backend)
    if not groups:
        return ["None."]
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1]))
    return [_reason_line(status, reason, by_name) for (status, reason), by_name in ordered]


def _reason_line(status: str, reason: str, by_name: dict[str, list[str]]) -> str:
    backends = sorted({backend for backends in by_name.values() for backend in backends})
    names = sorted(by_name)
    shown = ", ".join(names[:NAMES_PER_REASON])
    if len(names) > NAMES_PER_REASON:
        shown += f" and {len(names) - NAMES_PER_REASON} more"
    return f"- {status}, {len(names)} ({', '.join(backends)}): {reason}: {shown}"


def _generalise(reason: str) -> str:
    """The reason's first line without what differs between tests: node names and numbers."""
    first = (reason.strip().splitlines() or ["no reason given"])[0]
    first = re.sub(r"\S+\.pb: ", "", first)
    first = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'..'", first)
    return re.sub(r"(?<![A-Za-z_])-?\d+(\.\d+)?([eE][-+]?\d+)?", "#", first).rstrip(":. ")
