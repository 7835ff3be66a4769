"""What on_gpu.py has found, as a verdict and as a table."""

from __future__ import annotations

from dataclasses import dataclass, field

# Relative to the largest output. fp32 as the CPU computes it; the others as the layers' factors are rounded (2^-11), over the depth of
# these networks.
BOUNDS = {"fp32": 1e-5, "tf32": 4e-3, "f16": 4e-3, "bf16": 3e-2}
# Least speed in parts of PyTorch's, eager under a CUDA graph: of cuDNN where it counts, and of launches where those do.
COMPUTE_FLOORS = {"fp32": 0.8, "tf32": 0.7, "f16": 0.7}
COMPUTE = ("resnet50", "vgg19", "inception_v1")
LATENCY = ("squeezenet", "inception_v1")
LATENCY_FLOOR = 1.0


@dataclass
class Result:
    """Of one step; `values` are what its process said, `why` is why it said nothing."""

    kind: str
    case: str
    precision: str
    tool: str
    about: dict
    values: dict | None = None
    why: str = ""
    is_left_out: bool = False
    peer: str = field(init=False)

    def __post_init__(self) -> None:
        self.peer = {"bench": "eager", "compile": "compile"}.get(self.kind, "")

    def left_out(self, why: str) -> None:
        self.is_left_out, self.why = True, why

    def floor(self) -> float | None:
        network = self.about["network"].removeprefix("zoo:")
        if self.kind != "bench":
            return None
        floor = COMPUTE_FLOORS.get(self.precision) if network in COMPUTE else None
        return LATENCY_FLOOR if network in LATENCY and self.about["batch"] == 1 else floor

    def speed(self) -> float | None:
        """In parts of the peer's."""
        return self.values[self.peer] / self.values["lehr"] if self.values and self.peer in self.values else None

    def text(self) -> str:
        if self.values is None:
            return self.why
        if self.kind in ("bench", "compile"):
            peer = f"{self.peer} {self.values[self.peer]:.3f} ms" if self.peer in self.values else self.values["no_peer"]
            return f"lehr {self.values['lehr']:.3f} ms, {peer}"
        return ", ".join(f"{how} {error:.2e}" for how, error in self.values.items())


def verdict(r: Result) -> str:
    """`ok`, or in capitals what is not."""
    if r.values is None:
        return "NOT RUN" if r.is_left_out else "FAILED"
    if r.kind in ("bench", "compile"):
        floor, speed = r.floor(), r.speed()
        if floor is None:
            return "ok"
        return "NO PEER" if speed is None else "BELOW FLOOR" if speed < floor else "ok"
    return "ok" if max(r.values.values()) <= BOUNDS[r.precision] else "TOO FAR"


def table(device: str, results: list[Result]) -> str:
    parts = [f"{device}\n"]
    checks = [r for r in results if r.kind == "check"]
    parts += _part(
        "Agreement with the CPU",
        ["case", "precision", "library", "launch plan", "bound", "verdict"],
        [[r.case, r.precision, *_errors(r), f"{BOUNDS[r.precision]:.0e}", _verdict(r)] for r in checks],
    )
    sanitized = [r for r in results if r.kind == "sanitize"]
    parts += _part(
        "compute-sanitizer",
        ["case", "precision", "tool", "verdict"],
        [[r.case, r.precision, r.tool, _verdict(r)] for r in sanitized],
    )
    for kind, title in (("bench", "PyTorch, eager under a CUDA graph"), ("compile", "torch.compile, max-autotune")):
        timed = [r for r in results if r.kind == kind]
        parts += _part(
            f"Times beside {title}",
            ["network", "batch", "precision", "lehr ms", "images/s", "PyTorch ms", "lehr's speed / PyTorch's", "floor", "verdict"],
            [[r.about["network"], str(r.about["batch"]), r.precision, *_times(r), _verdict(r)] for r in timed],
        )
    return "\n".join(parts)


def _part(title: str, head: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"## {title}\n", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in rows), ""]


def _verdict(r: Result) -> str:
    no_peer = (r.values or {}).get("no_peer")
    words = verdict(r) + (f": {r.why}" if r.why else f"; {no_peer}" if no_peer else "")
    return words.replace("|", "/").replace("\n", " ")


def _errors(r: Result) -> list[str]:
    return [f"{r.values[how]:.1e}" if r.values and how in r.values else "-" for how in ("library", "plan")]


def _times(r: Result) -> list[str]:
    if r.values is None:
        return ["-"] * 5
    lehr, speed, floor = r.values["lehr"], r.speed(), r.floor()
    peer = f"{r.values[r.peer]:.3f}" if speed is not None else "-"
    ratio = f"{speed:.2f}" if speed is not None else "-"
    return [f"{lehr:.3f}", f"{1e3 * r.about['batch'] / lehr:.0f}", peer, ratio, f"{floor}" if floor else "-"]
