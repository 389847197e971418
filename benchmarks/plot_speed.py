"""Draws docs/performance.png from the results of `ddpm-ip bench` and of profile_step.py.

cd benchmarks; python plot_speed.py results/h200_bench_32.json results/h200_profile_512.json ../docs/performance.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"plain": "#b8b8b8", "diffusers": "#e0a458", "ours": "#2f6f9f"}
LABELS = {"plain": "plain PyTorch", "diffusers": "diffusers", "ours": "ddpm-ip"}
TITLES = {"train": "Training, images/s", "sample": "Sampling, evaluations x images/s"}
NORMS, CONVOLUTIONS = ("norm, forward", "norm, backward"), (
    "convolution", "convolution, input", "convolution, weights", "matrix product", "attention", "doubling",
)  # fmt: skip
PARTS = {"convolutions, matrix products": "#2f6f9f", "norms": "#7fb069", "all the rest": "#b8b8b8"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speed", type=Path, help="what `ddpm-ip bench` wrote")
    parser.add_argument("profile", type=Path, help="what profile_step.py wrote")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    args = parser.parse_args()
    speed, steps = (json.loads(path.read_text()) for path in (args.speed, args.profile))
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), width_ratios=(1, 1, 1.15))
    for axis, task in zip(axes[:2], TITLES, strict=True):
        bars(axis, [row for row in speed["rows"] if row["task"] == task])
        axis.set_title(TITLES[task], fontsize=10, loc="left")
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    profile(axes[2], steps)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(args.picture, dpi=110)


def bars(axis: Any, rows: list[dict[str, Any]]) -> None:
    batches = sorted({row["batch"] for row in rows})
    for i, system in enumerate(COLOURS):
        rates = [next(r["images_per_s"] for r in rows if (r["system"], r["batch"]) == (system, b)) for b in batches]
        drawn = axis.bar(
            [x + 0.27 * (i - 1) for x in range(len(batches))], rates, 0.25, color=COLOURS[system], label=LABELS[system]
        )
        axis.bar_label(drawn, [f"{rate / 1000:.1f}k" for rate in rates], fontsize=7, padding=1)
    axis.set_xticks(range(len(batches)), [f"batch {b}" for b in batches])
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.margins(y=0.22)


def profile(axis: Any, steps: dict[str, Any]) -> None:
    for y, (path, name) in enumerate((("auto", "ddpm-ip"), ("off", "plain PyTorch, bf16"))):
        ms = steps["paths"][path]["ms"]
        sums = dict.fromkeys(PARTS, 0.0)
        for kind, value in ms.items():
            part = (
                "norms"
                if kind in NORMS
                else "convolutions, matrix products"
                if kind in CONVOLUTIONS
                else "all the rest"
            )
            sums[part] += value
        left = 0.0
        for part, value in sums.items():
            axis.barh(y, value, 0.5, left=left, color=PARTS[part], label=part if y == 0 else None)
            if value > 12:
                axis.text(left + value / 2, y, f"{value:.0f}", ha="center", va="center", fontsize=8, color="white")
            left += value
        axis.text(0, y + 0.33, f"{name}: {left:.0f} ms", fontsize=8)
    axis.set_title(f"Where a step's time goes, batch {steps['batch']}", fontsize=10, loc="left")
    axis.set_yticks([])
    axis.set_ylim(-0.9, 1.6)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("milliseconds of GPU time", fontsize=8)
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", columnspacing=0.8, handlelength=1)


if __name__ == "__main__":
    main()
