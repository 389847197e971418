"""Sizes of the norm kernels on a GPU: milliseconds forward and backward for each way of cutting up a feature map.

    python benchmarks/norm_sweep.py --out benchmarks/results/NAME.json

The shapes are those of the CIFAR-10 network at batch 512, bf16. The least time is what reading x (and dy, and a
residual) and writing the result once would take at the speed of a copy measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_ip.bench.measure import peak
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.run.provenance import provenance

BATCH = 512
# channels of the two maps that are joined, height and width, with a shift and dropout or with a residual's gradient
SHAPES = [(128, 0, 32, True), (128, 0, 32, False), (256, 128, 32, False), (256, 0, 16, True), (256, 256, 16, False)]
SIZES = list(product((32, 64), (8, 16), (4, 8), (1, 3)))  # lanes, numbers a thread, warps, stages of the pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args = parser.parse_args()
    here = provenance()
    tb_s = peak(torch.device("cuda"))["copy_tb_s"]
    assert tb_s is not None
    rows = [row for shape in SHAPES for row in sweep(*shape, tb_s)]
    record = {"date": date.today().isoformat(), **{k: here[k] for k in ("hardware", "versions", "git")}, "rows": rows}
    args.out.write_text(json.dumps(record, indent=1) + "\n")


def sweep(c1: int, c2: int, size: int, shifted: bool, tb_s: float) -> list[dict[str, Any]]:
    """All sizes for one shape."""
    c = c1 + c2
    x1, dy = maps(c1, size), maps(c, size)
    x2 = maps(c2, size) if c2 else None
    weight, bias = torch.rand(2, c, device="cuda")
    shift = torch.randn(BATCH, c, device="cuda") if shifted else None
    keys = torch.randint(0, 2**32, (BATCH,), device="cuda") if shifted else None
    r1, r2 = (None, None) if shifted else (maps(c1, size), maps(c2, size) if c2 else None)
    inputs = norm_kernels.Inputs(x1, x2, shift, weight, bias, keys)
    settings = norm_kernels.Settings(groups=32, eps=1e-6, silu=True, dropout=0.1 * shifted, layer=0)
    unit = BATCH * c * size**2 * 2 / tb_s / 1e9
    rows, plan = [], norm_kernels._plan
    for lanes, per_thread, warps, stages in SIZES:
        norm_kernels._plan = fixed(plan, lanes, per_thread, warps, stages)
        _, stats = norm_kernels.norm_forward(inputs, settings)
        forward = milliseconds(lambda: norm_kernels.norm_forward(inputs, settings))
        backward = milliseconds(lambda stats=stats: norm_kernels.norm_backward(inputs, settings, stats, dy, r1, r2))
        row = {"channels": [c1, c2], "size": size, "shift_and_dropout": shifted}
        row |= {"lanes": lanes, "per_thread": per_thread, "warps": warps, "stages": stages}
        row |= {"forward_ms": forward, "backward_ms": backward}
        rows.append({**row, "least_forward_ms": 2 * unit, "least_backward_ms": (3 if shifted else 4) * unit})
        print(json.dumps(rows[-1]), flush=True)
    norm_kernels._plan = plan
    return rows


def fixed(plan: Callable[..., Any], lanes: int, per_thread: int, warps: int, stages: int) -> Callable[..., Any]:
    """A plan with these sizes."""

    def planned(c1: int, c2: int, places: int, group: int) -> Any:
        usual = plan(c1, c2, places, group)
        block = max(n * group for n in range(1, lanes // group + 1) if (c1 + c2) % (n * group) == 0)
        rows = warps * 32 * per_thread // lanes
        sizes = {"LANES": lanes, "BLOCK_C": block, "ROWS": rows, "STAGES": stages, "ONCE": False}
        even = {"EVEN": places % rows == 0 and block == lanes}
        return norm_kernels._Plan((c1 + c2) // block, {**usual.options, **sizes, **even}, warps)

    return planned


def maps(channels: int, size: int) -> Tensor:
    shape = (BATCH, channels, size, size)
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)


def milliseconds(work: Callable[[], object], repeats: int = 6) -> float:
    """The median of five replays of a graph of ``repeats`` calls."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    times = []
    for _ in range(6):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / repeats)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
