"""Joins what exposure_gpu.sh measured, and draws the figures of docs/exposure-bias.md.

    python benchmarks/plot_exposure.py join KEEP benchmarks/results/h200_exposure.json
    python benchmarks/plot_exposure.py draw benchmarks/results docs    # exposure-*.png and calibration.png
    python benchmarks/plot_exposure.py table benchmarks/results        # Markdown, as in docs/exposure-bias.md

KEEP is the folder of exposure_gpu.sh: NETWORK/exposure/*.json and NETWORK/calibration*.json, the networks ip and twin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = {"ip": "gamma 0.1", "twin": "gamma 0"}
CURVES = ("eps_norm.sampling", "eps_norm.training", "eps_norm.ratio", "delta", "drift", "coupled_time")
BANDS = tuple(f"energy.{of}.haar{band}.ratio" for of in ("xt", "x0") for band in range(4))
BLUE, ORANGE, GREEN, GRAY = "#2f6f9f", "#b5532a", "#3c8a4e", "#8a8a8a"
SUFFERS = 0.85  # a cell suffers where the best constant scale leaves less than this
Row = dict[str, Any]


def join(keep: Path, out: Path) -> None:
    """The curves of all files, a line a curve, with the network's slope from the calibrations."""
    rows, slopes = [], {}
    for network in NETWORKS:
        for path in sorted((keep / network / "exposure").glob("*.json")):
            found = json.loads(path.read_text())
            curves = {name: _short(found["curves"][name]) for name in (*CURVES, *BANDS) if name in found["curves"]}
            rows.append(
                {key: found[key] for key in ("label", "weights", "sampling", "n")}
                | {"network": network, "curves": curves}
            )
        for path in sorted((keep / network).glob("calibration-ddim-50-*.json")):
            found = json.loads(path.read_text())
            slopes[network] = {key: [round(x, 5) for x in found["curves"]["slope"][key]] for key in ("t", "value")}
    head = {
        "date": "2026-11-26", "hardware": "one NVIDIA H200 a network and sampler, of a machine with four",
        "git": {"commit": "0d20c0d"}, "versions": {"torch": "2.11.0+cu130"},
        "command": "bash benchmarks/exposure_gpu.sh curves",
        "what": "ddpm-ip exposure of the 35.7M CIFAR-10 U-Net with gamma 0.1 (ip) and 0 (twin), 50 steps; "
        "an interval of 95 % is value +- 1.96 se; slope: of the calibration of ddim",
        "slope": slopes,
    }  # fmt: skip
    lines = []
    for row in rows:
        curves = ",\n".join(f'   "{name}": {json.dumps(curve)}' for name, curve in row.pop("curves").items())
        lines.append(f'{json.dumps(row)[:-1]}, "curves": {{\n{curves}}}}}')
    out.write_text(json.dumps(head)[:-1] + ',\n "rows": [\n' + ",\n".join(lines) + "\n ]\n}\n")


def _short(curve: Row) -> Row:
    return {key: [float(f"{x:.5g}") for x in curve[key]] for key in ("t", "value", "se")}


def line(rows: list[Row], network: str, label: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, values and standard errors; of what was measured twice that with all curves."""
    found = [r for r in rows if (r["network"], r["label"]) == (network, label) and name in r["curves"]]
    curve = min(found, key=lambda r: r["n"])["curves"][name]
    return tuple(np.array(curve[key]) for key in ("t", "value", "se"))  # type: ignore[return-value]


def predicted(slope: Row, steps: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """How many times too large the noise of DDIM's states becomes if each step leaves what the slope says.

    A step from t to s writes ``alpha_s x0 + sigma_s eps`` with ``lambda`` times the noise that there is; ``x0`` takes
    ``(1 - lambda) sigma_t / alpha_t`` of it. With ``rho = sigma / alpha`` the factor of the noise is multiplied by
    ``lambda + (1 - lambda) rho_t / rho_s``.
    """
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, steps))
    order = np.argsort(slope["t"])[::-1]
    t, value = np.array(slope["t"])[order], np.array(slope["value"])[order]
    rho = np.interp(t, np.arange(steps), np.sqrt((1 - bar) / bar))
    factors = value[:-1] + (1 - value[:-1]) * rho[:-1] / rho[1:]
    return t, np.concatenate([[1.0], np.cumprod(factors)])


def panel(axis: Any, title: str, ylabel: str = "") -> None:
    axis.axhline(1, color="#555555", linewidth=0.8)
    axis.set_title(title, fontsize=9.5, loc="left")
    axis.set_ylabel(ylabel, fontsize=8.5)
    axis.set_xlabel("t (noise on the left, data on the right)", fontsize=8.5)
    axis.set_xlim(1010, -15)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#eeeeee")


def norms(found: Row, out: Path, plt: Any) -> None:
    """The norms' ratio of both samplers and networks, and beside it with corrections."""
    rows = found["rows"]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    bare = {"ip": BLUE, "twin": GRAY}
    for axis, sampler in zip(axes[:2], ("ddim", "fixed_small"), strict=True):
        panel(axis, {"ddim": "DDIM, 50 steps", "fixed_small": "ancestral fixed-small, 50 steps"}[sampler])
        for network, colour in bare.items():
            _band(axis, line(rows, network, f"{sampler}, 50 steps", "eps_norm.ratio"), colour, NETWORKS[network])
            if sampler == "ddim":
                t, value = predicted(found["slope"][network])
                near = t >= 100
                told = "from the slope alone" if network == "ip" else None
                axis.plot(t[near], value[near], color=colour, linewidth=1.2, linestyle=(0, (4, 2)), label=told)
    panel(axes[2], "gamma 0.1, corrected")
    for sampler, scale, colour in (("ddim", 0.99, BLUE), ("fixed_small", 1.03, ORANGE)):
        name = {"ddim": "DDIM", "fixed_small": "fixed-small"}[sampler]
        _band(axes[2], line(rows, "ip", f"{sampler}+auto, 50 steps", "eps_norm.ratio"), colour, f"{name}, auto")
        corrected = line(rows, "ip", f"{sampler}+epsilon_scaling,scale={scale}, 50 steps", "eps_norm.ratio")
        axes[2].plot(
            *corrected[:2], color=colour, linewidth=1.2, linestyle=(0, (1, 1.2)), label=f"{name}, scale {scale}"
        )
    axes[0].set_ylabel("norm of eps: sampling / real states", fontsize=8.5)
    axes[0].set_ylim(0.985, 1.185)
    for axis in axes:
        axis.legend(fontsize=8, frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def _band(axis: Any, curve: tuple[np.ndarray, np.ndarray, np.ndarray], colour: str, label: str) -> None:
    t, value, se = curve
    axis.plot(t, value, color=colour, linewidth=1.7, label=label)
    axis.fill_between(t, value - 1.96 * se, value + 1.96 * se, color=colour, alpha=0.25, linewidth=0)


def energies(found: Row, out: Path, plt: Any) -> None:
    """The energy of states by band, of both samplers, bare and calibrated."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    colours = ("#c9c2b2", "#c0902b", ORANGE, "#7a2e12")
    names = ("coarsest (haar0)", "haar1", "haar2", "finest (haar3)")
    shown = (("ddim", "DDIM"), ("fixed_small", "ancestral fixed-small"), ("ddim+auto", "both, auto"))
    for axis, (label, title) in zip(axes, shown, strict=True):
        panel(axis, f"gamma 0.1, {title}")
        axis.set_yscale("log")
        for band, (colour, name) in enumerate(zip(colours, names, strict=True)):
            key = f"energy.xt.haar{band}.ratio"
            _band(axis, line(found["rows"], "ip", f"{label}, 50 steps", key), colour, name)
            if "auto" in label:
                other = line(found["rows"], "ip", "fixed_small+auto, 50 steps", key)
                axis.plot(*other[:2], color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    axes[0].set_ylabel("energy of x_t: sampling / real states", fontsize=8.5)
    axes[0].set_ylim(0.62, 1.95)
    axes[0].set_yticks([0.7, 0.8, 1, 1.2, 1.5, 1.8], ["0.7", "0.8", "1", "1.2", "1.5", "1.8"])
    axes[0].minorticks_off()
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    axes[2].plot([], [], color="#555555", label="DDIM")
    axes[2].plot([], [], color="#555555", linestyle=(0, (4, 2)), label="fixed-small")
    axes[2].legend(handles=axes[2].get_lines()[-2:], fontsize=8, frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def cells(path: Path) -> list[Row]:
    """Of each cell: none, auto, their ratio, the best constant scale, its ratio, and what was asked for."""
    rows = []
    for row in json.loads(path.read_text())["rows"]:
        none, auto, scan = float(np.mean(row["none"])), float(np.mean(row["auto"])), row["scan"]
        scale, best = min(scan["rows"].items(), key=lambda pair: pair[1])
        suffers = best < SUFFERS * scan["none"]
        steps = row["steps"]
        goal = (0.55 if steps <= 13 else 0.6 if steps <= 20 else 0.8) if suffers else 1.02
        rows.append({
            **{key: row[key] for key in ("network", "sampler", "steps", "chosen")},
            "seconds": row["calibration_seconds"],
            "none": none, "auto": auto, "ratio": auto / none, "scale": scale, "best": best / scan["none"],
            "auto_few": scan["auto"] / scan["none"], "goal": goal, "suffers": suffers,
        })  # fmt: skip
    order = ("ddim", "dpm_solver", "ipndm", "fixed_small")
    return sorted(rows, key=lambda r: (r["network"], order.index(r["sampler"]), r["steps"]))


def dots(rows: list[Row], out: Path, plt: Any) -> None:
    """Each cell before and after, on a logarithmic axis."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), sharex=True, sharey=True)
    names = {"ddim": "DDIM", "dpm_solver": "DPM-Solver++", "ipndm": "iPNDM", "fixed_small": "ancestral"}
    for axis, (network, title) in zip(axes, (("ip", "gamma 0.1"), ("plain", "gamma 0")), strict=True):
        own = [row for row in rows if row["network"] == network]
        y = [-k - 0.7 * (k // 3) for k in range(len(own))]
        for at, row in zip(y, own, strict=True):
            axis.plot([row["none"], row["auto"]], [at, at], color="#cccccc", linewidth=1.5, zorder=1)
            told = f"{row['ratio']:.2f}" if row["chosen"] != "none" else "nothing corrected"
            axis.annotate(told, (max(row["none"], row["auto"]), at), xytext=(7, 0), textcoords="offset points",
                          va="center", fontsize=7.5, color="#777777")  # fmt: skip
        axis.scatter([r["none"] for r in own], y, color=GRAY, s=24, zorder=2, label="no correction")
        axis.scatter([r["auto"] for r in own], y, color=BLUE, s=24, zorder=3, label="--corrections auto")
        axis.set_xscale("log")
        axis.set_yticks(y, [f"{names[r['sampler']]}, {r['steps']}" for r in own])
        axis.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
        axis.minorticks_off()
        axis.set_xlim(8, 520)
        axis.set_title(title, fontsize=9.5, loc="left")
        axis.set_xlabel("FD-C56 of 10,000 images, log scale (lower is better)", fontsize=8.5)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#eeeeee")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8.5, frameon=False, ncols=2, loc="upper right")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def table(rows: list[Row]) -> str:
    """Markdown."""
    names = {"ip": "0.1", "plain": "0"}
    lines = ["| gamma | sampler | evaluations | none | auto | ratio | best scale | auto there | goal | seconds |",
             "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for row in rows:
        goal = f"{row['goal']:.2f}" if row["suffers"] else "not worse"
        scale = f"{row['best']:.2f} ({row['scale']})"
        cells = [names[row["network"]], f"`{row['sampler']}`", str(row["steps"])]
        cells += [f"{row['none']:.1f}", f"{row['auto']:.1f}", f"**{row['ratio']:.2f}**", scale]
        cells += [f"{row['auto_few']:.2f}", goal, f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(command: str, source: Path, out: Path | None = None) -> None:
    if command == "join" and out is not None:
        join(source, out)
        return
    rows = cells(source / "h200_calibration.json")
    if command == "table":
        print(table(rows))
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    assert out is not None
    found = json.loads((source / "h200_exposure.json").read_text())
    norms(found, out / "exposure-norms.png", plt)
    energies(found, out / "exposure-energy.png", plt)
    dots(rows, out / "calibration.png", plt)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
