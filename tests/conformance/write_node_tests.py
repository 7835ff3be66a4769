"""Writes every ONNX node test as a backend test directory: `write_node_tests.py OUT`, then e.g. `lehr test OUT/test_conv_*`."""

from __future__ import annotations

import argparse
from pathlib import Path

from node_tests import write_node_tests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that gets one directory per test")
    out: Path = parser.parse_args().out
    print(f"{write_node_tests(out)} tests written to {out}")


if __name__ == "__main__":
    main()
