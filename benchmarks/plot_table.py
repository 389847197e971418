"""Draws docs/real_table.png from the record of real_table.sh: the distance by the number of steps, a panel a variance.

Lines join what was measured on as many images; 1,000 steps, on fewer images, stand alone.

cd benchmarks; python plot_table.py results/real_table.json ../docs/real_table.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ddpm_ip.run.record import records

RUNS = {"ddpm": ("DDPM", "#8c8c8c", "s"), "ip": ("DDPM-IP", "#2f6f9f", "o")}
VARIANCES = ("fixed_large", "fixed_small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="real_table.json")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    args = parser.parse_args()
    runs = json.loads(args.record.read_text())["runs"]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for axis, variance in zip(axes, VARIANCES, strict=True):
        by_run = {name: distances(runs[name], variance) for name in RUNS}
        for name, (label, colour, marker) in RUNS.items():
            *many, few = sorted(by_run[name].items())
            axis.loglog(*zip(*many, strict=True), marker=marker, markersize=5, color=colour, label=label)
            axis.loglog(*few, marker=marker, markersize=5, color=colour, markerfacecolor="white")
        for k, value in by_run["ip"].items():
            change = value / by_run["ddpm"][k] - 1
            axis.annotate(f"{change:+.0%}", (k, value), (0, -14), textcoords="offset points", ha="center", fontsize=8)
        axis.annotate("2,000 images", (1000, by_run["ddpm"][1000]), (0, 14), textcoords="offset points", ha="center",
                      fontsize=8, color="#666666")  # fmt: skip
        axis.set_title(variance.replace("_", "-"), fontsize=10, loc="left")
        axis.set_xticks(sorted(by_run["ip"]), [f"{k:,}" for k in sorted(by_run["ip"])])
        axis.set_yticks([5, 10, 30, 100, 300, 1000], ["5", "10", "30", "100", "300", "1000"])
        axis.minorticks_off()
        axis.set_ylim(3.5, 1100)
        axis.margins(x=0.12)
        axis.set_xlabel("sampling steps", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    axes[0].set_ylabel("FD-C56 (lower is better)", fontsize=8)
    axes[1].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(args.picture, dpi=110)


def distances(run: dict[str, Any], variance: str) -> dict[int, float]:
    """FD-C56 by the number of steps."""
    return {
        record.steps: record.value
        for part in ("few-steps", "all-steps")
        for row in run[part]["results"]
        for record in records(row, f"{part} of real_table.json")
        if record.metric == "FD-C56" and record.row == variance
    }


if __name__ == "__main__":
    main()
