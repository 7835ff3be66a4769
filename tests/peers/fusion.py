"""What folding, fusion and Winograd's algorithm bring on every network of the zoo, and on the nine of bench.py; writes FUSION.md
and fusion.svg.

    tests/peers/fusion.py --lehr target/release/lehr [--networks resnet50,vgg19.onnx] [--threads 1] [--seconds 2]

Each row is two runs of `lehr bench zoo:NAME|MODEL.onnx --compare unfused,fused`, which measures both variants in turn in one process:
one with --numerics strict, where -O2 differs from -O1 by folding batch norms and scales into weights and by fusion alone, and one
with the default numerics, where convolutions may also take Winograd's algorithm. What is measured is kept in fusion.json, so
that networks may be measured one by one and the page be written again (--networks ""). Leave the machine alone while it runs.
Needs Python 3.10, and for the nine of bench.py what that needs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import subprocess
from pathlib import Path
from statistics import geometric_mean

HERE = Path(__file__).parent
MEASURED, PAGE, CHART = HERE / "fusion.json", HERE / "FUSION.md", HERE / "fusion.svg"
# As `lehr zoo` lists them, without those that are others in another size or have nothing to fuse.
NETWORKS = (
    "mlp lenet5 alexnet vgg16 blurpool inception_naive inception_v1 resnet18 resnet50 senet densenet121 squeezenet "
    "mobilenet siren hnet "
    "bvlc_alexnet.onnx densenet121.onnx inception_v1.onnx inception_v2.onnx resnet50.onnx shufflenet.onnx squeezenet.onnx "
    "vgg19.onnx zfnet512.onnx"
).split()
TIMEOUT_S = 600


def main() -> None:
    options = _parse()
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for name in options.networks:
        row = {"threads": options.threads, "date": f"{datetime.date.today()}", "machine": _cpu()}
        for numerics in ("strict", "fast"):
            row[numerics] = _compare(options, name, numerics)
        measured[name] = row
        print(f"{name}: {row['strict']['ratio']:.2f} strict, {row['fast']['ratio']:.2f} fast", flush=True)
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    rows = {name: measured[name] for name in NETWORKS if name in measured}
    PAGE.write_text(page(rows))
    CHART.write_text(chart(rows))


def _compare(options: argparse.Namespace, name: str, numerics: str) -> dict:
    command = [options.lehr, "bench", _model(name), "--compare", "unfused,fused", "--json", "--numerics", numerics]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name}: lehr ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout)
    unfused, fused = answer["variants"]
    return {"unfused_ms": unfused["median_ms"], "fused_ms": fused["median_ms"], "ratio": answer["ratio"]}


def _model(name: str) -> str:
    if not name.endswith(".onnx"):
        return f"zoo:{name}"
    from peers_common import cached_network  # needs numpy and onnx

    return str(cached_network(name.removesuffix(".onnx")) / "model.onnx")


def _cpu() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def page(rows: dict[str, dict]) -> str:
    settings = sorted({f"{row['date']}, {row['machine']}, {row['threads']} thread(s)" for row in rows.values()})
    lines = [
        "# What folding and fusion bring",
        "",
        "; ".join(settings) + ". Batch 1, f32, seeded weights, random inputs; medians.",
        "",
        "*Unfused* is `-O1`: constants folded, everything cleaned up, each operator a kernel of its own. *Fused* is `-O2 --numerics",
        "strict`: batch norms and scales in the weights, elementwise work in the kernels before it. *Fast* is plain `-O2`, where",
        "convolutions may also take Winograd's algorithm, and large fully connected layers read weights of 25 bits. NAME.onnx are the models of RESULTS.md, the others lehr's own. How many times as fast as unfused, measured in turn in one process:",
        "",
        "![How many times as fast each network is](fusion.svg)",
        "",
        "| network           | unfused ms | fused ms | fast ms | fused is | fast is |",
        "| ----------------- | ---------: | -------: | ------: | -------: | ------: |",
    ]
    for name, row in rows.items():
        strict, fast = row["strict"], row["fast"]
        lines.append(
            f"| {name:<17} | {_ms(strict['unfused_ms']):>10} | {_ms(strict['fused_ms']):>8} | {_ms(fast['fused_ms']):>7} "
            f"| {strict['ratio']:>7.2f}x | {fast['ratio']:>6.2f}x |"
        )
    means = [geometric_mean(row[n]["ratio"] for row in rows.values()) for n in ("strict", "fast")]
    lines.append(f"| geometric mean    | {'':>10} | {'':>8} | {'':>7} | {means[0]:>7.2f}x | {means[1]:>6.2f}x |")
    if missing := [name for name in NETWORKS if name not in rows]:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    lines += ["", "`tests/peers/fusion.py` makes this page, the chart and the numbers behind them (`fusion.json`).", ""]
    return "\n".join(lines)


def _ms(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


ROW, BAR, LEFT, WIDTH, TOP = 40, 13, 150, 760, 44


def chart(rows: dict[str, dict]) -> str:
    """Two bars a network: how many times as fast as unfused."""
    most = max(row[n]["ratio"] for row in rows.values() for n in ("strict", "fast"))
    limit = max(2, -(-most // 1))
    height = TOP + ROW * len(rows) + 30
    at = lambda ratio: LEFT + ratio / limit * (WIDTH - LEFT - 60)  # noqa: E731
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="How many times as fast each network is, fused and fast, as unfused">',
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.soft{fill:#57606a}.a{fill:#2f6fd0}.b{fill:#15805a}"
        ".grid{stroke:#d0d7de}.one{stroke:#57606a;stroke-dasharray:4 3}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.a{fill:#6ba3f0}.b{fill:#4dbf92}"
        ".grid{stroke:#3d444d}.one{stroke:#9198a1}}</style>",
    ]
    for x, kind, text in ((LEFT, "a", "folding and fusion (strict)"), (LEFT + 220, "b", "and Winograd (fast)")):
        out.append(f'<rect class="{kind}" x="{x}" y="10" width="13" height="13" rx="2"/>')
        out.append(f'<text x="{x + 19}" y="21">{text}</text>')
    for ratio in range(int(limit) + 1):
        line = "one" if ratio == 1 else "grid"
        out.append(f'<path class="{line}" d="M{at(ratio):.1f} {TOP - 8}V{height - 26}"/>')
        out.append(f'<text class="soft" x="{at(ratio):.1f}" y="{height - 8}" text-anchor="middle">{ratio}x</text>')
    for k, (name, row) in enumerate(rows.items()):
        y = TOP + ROW * k
        out.append(f'<text x="{LEFT - 10}" y="{y + BAR + 5}" text-anchor="end">{name}</text>')
        for n, (kind, numerics) in enumerate((("a", "strict"), ("b", "fast"))):
            ratio, top = row[numerics]["ratio"], y + n * (BAR + 2)
            out.append(f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{at(ratio) - LEFT:.1f}" height="{BAR}" rx="2"/>')
            out.append(f'<text class="soft" x="{at(ratio) + 6:.1f}" y="{top + 11}">{ratio:.2f}x</text>')
    return "\n".join([*out, "</svg>", ""])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lehr", type=Path, default=Path("target/release/lehr"))
    parser.add_argument("--networks", type=lambda text: [name for name in text.split(",") if name], default=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - set(NETWORKS))
    if unknown:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    return options


if __name__ == "__main__":
    main()
