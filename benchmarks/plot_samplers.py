"""Puts the files of samplers_gpu.sh together, and draws docs/choosing.png: distance by network evaluations.

python benchmarks/plot_samplers.py join FOLDER benchmarks/results/h200_samplers    # ..._2k, _10k and _twin .json
python benchmarks/plot_samplers.py draw benchmarks/results/h200_samplers docs/choosing.png
python benchmarks/plot_samplers.py tables benchmarks/results/h200_samplers         # Markdown, as in docs/choosing.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PARTS = {
    "2k": ("scan0", "scan1", "corr0", "corr1", "closer0", "closer1", "reference0", "reference2"),
    "10k": ("winners1", "winners0"),
    "twin": ("twin0", "twin1", "twin2"),
}
KEY = ("sampler", "spacing", "corrections", "unusual", "evaluations_at_most", "seed", "images")
STRONG = {
    "dpm_solver_single": "#b5532a", "er_sde": "#2f6f9f", "sa_solver": "#3c8a4e", "dpm_solver_sde": "#7a4fa3",
    "dpm_solver": "#c0902b", "ancestral": "#333333",
}  # fmt: skip
FAMILIES = (
    "ancestral", "ddim", "dpm_solver", "dpm_solver_single", "dpm_solver_sde", "unipc", "ipndm", "ipndm_v", "deis",
    "heun", "sa_solver", "er_sde", "restart",
)  # fmt: skip
Row = dict[str, Any]


def join(folder: Path, stem: str) -> None:
    """One file of each kind, a line a row; what the parts have in common once, and the commits and commands of all."""
    for kind, names in PARTS.items():
        parts = [json.loads((folder / f"{name}.json").read_text()) for name in names]
        rows: dict[tuple[Any, ...], Row] = {}
        for part in parts:
            for row in part["rows"]:
                rows.setdefault(tuple(row.get(key, "") for key in KEY), row)
        head = {key: parts[0][key] for key in ("date", "hardware", "versions", "metric", "network", "weights_sha256")}
        assert all(part[key] == head[key] for part in parts for key in head), (
            f"{kind}: parts that do not belong together"
        )
        head["commits"] = sorted({part["git"]["commit"] for part in parts})
        head["commands"] = sorted({" ".join(part["command"].split(" --network")[0].split()[:2]) for part in parts})
        if kind == "twin":  # trained in the same call: its last log line
            head["training"] = json.loads((folder / "twin/metrics.jsonl").read_text().splitlines()[-1])
        lines = ",\n".join(json.dumps({k: _short(v) for k, v in row.items()}) for row in rows.values())
        text = json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n"
        Path(f"{stem}_{kind}.json").write_text(text)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def best(rows: Iterable[Row], *, corrected: bool = False) -> dict[tuple[str, int], Row]:
    """By family and number of evaluations, the smallest distance."""
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row.get("FD-C56") is None or bool(row["corrections"]) != corrected or row["seed"]:
            continue
        key = row["sampler"].split(",")[0], row["evaluations_at_most"]
        if key not in found or row["FD-C56"] < found[key]["FD-C56"]:
            found[key] = row
    return found


def draw(stem: str, picture: Path) -> None:
    """Two networks side by side; each point is the best setting and spacing of its family."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), sharey=True, width_ratios=(3, 2))
    panels = (("2k", "trained with gamma 0.1", (6, 10, 20, 50)), ("twin", "its twin without perturbation", (6, 10)))
    for axis, (kind, title, evaluations) in zip(axes, panels, strict=True):
        found = best(json.loads(Path(f"{stem}_{kind}.json").read_text())["rows"])
        ends = []
        for family in FAMILIES:
            points = [(n, found[family, n]["FD-C56"]) for n in evaluations if (family, n) in found]
            if len(points) < 2:
                continue
            colour = STRONG.get(family, "#b9b9b9")
            axis.loglog(*zip(*points, strict=True), marker="o", markersize=4, color=colour,
                        linewidth=1.8 if family in STRONG else 1, zorder=3 if family in STRONG else 2)  # fmt: skip
            ends.append((points[-1], family, colour if family in STRONG else "#777777"))
        _label(axis, ends)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xticks(evaluations, [str(n) for n in evaluations])
        axis.set_yticks([8, 10, 20, 50, 100, 200, 400], ["8", "10", "20", "50", "100", "200", "400"])
        axis.minorticks_off()
        axis.set_ylim(7, 480)
        axis.set_xlim(evaluations[0] * 0.93, evaluations[-1] * (2.1 if kind == "2k" else 1.35))
        axis.set_xlabel("network evaluations", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    axes[0].set_ylabel("FD-C56 of 2,000 images (lower is better)", fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _label(axis: Any, ends: list[tuple[tuple[float, float], str, str]], apart: float = 1.17) -> None:
    """Names beside the last points, moved apart."""
    below = 0.0
    for (x, y), family, colour in sorted(ends, key=lambda end: end[0][1]):
        at = max(y, below * apart)
        axis.annotate(family, (x, y), xytext=(x * 1.12, at), fontsize=7.5, color=colour, va="center",
                      arrowprops={"arrowstyle": "-", "color": "#cccccc", "linewidth": 0.6})  # fmt: skip
        below = at


def tables(stem: str) -> None:
    """Prints the tables of docs/choosing.md."""
    ip, twin = (json.loads(Path(f"{stem}_{kind}.json").read_text())["rows"] for kind in ("2k", "twin"))
    ten = json.loads(Path(f"{stem}_10k.json").read_text())["rows"]
    print("| 10,000 images | 6 | 10 | 20 | 50 |\n|---|--:|--:|--:|--:|")
    found = best(ten)
    for family in FAMILIES:
        print(f"| `{family}` |", " | ".join(_cell(found.get((family, n))) for n in (6, 10, 20, 50)), "|")
    print("\n| 2,000 images | 6, gamma 0.1 | 6, twin | 10, gamma 0.1 | 10, twin |\n|---|--:|--:|--:|--:|")
    a, b = best(ip), best(twin)
    for family in FAMILIES:
        print(f"| `{family}` |", " | ".join(_cell(f.get((family, n))) for n in (6, 10) for f in (a, b)), "|")
    samplers = ("ddim", "dpm_solver,order=2", "ipndm,order=4", "ancestral,var_type=fixed_small")
    spacing = {"ddim": "logsnr", "dpm_solver,order=2": "logsnr", "ipndm,order=4": "karras"}
    print()
    chains = list(dict.fromkeys(row["corrections"] for row in ip))
    for chain in chains:
        cells = []
        for sampler in samplers:
            wanted = sampler, chain, spacing.get(sampler, "uniform-linspace"), ""
            rows = {
                row["evaluations_at_most"]: row["FD-C56"] for row in ip
                if (row["sampler"], row["corrections"], row["spacing"], row.get("unusual", "")) == wanted
            }  # fmt: skip
            cells += [f"{rows[n]:.1f}" if n in rows else "" for n in (10, 20, 50)]
        if sum(map(bool, cells)) > 2:
            print(f"| {chain or 'none'} |", " | ".join(cells), "|")


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    settings = row["sampler"].partition(",")[2]
    told = ", ".join(filter(None, (settings, row["spacing"].removeprefix("uniform-"), row.get("unusual", ""))))
    return f"{row['FD-C56']:.1f} ({told})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("join", "draw", "tables"))
    parser.add_argument("paths", nargs="+")
    args = parser.parse_args()
    if args.what == "join":
        join(Path(args.paths[0]), args.paths[1])
    elif args.what == "draw":
        draw(args.paths[0], Path(args.paths[1]))
    else:
        tables(args.paths[0])


if __name__ == "__main__":
    main()
