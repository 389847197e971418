# %% [markdown]
# # Exposure bias on handwritten digits: see it, measure it, correct it
#
# Two tiny networks, trained here on the same images with the same seed: plain DDPM, and DDPM-IP with gamma 0.1. The
# page docs/exposure-bias.md says the same of larger ones. A file with `# %%` cells is a notebook for VS Code, PyCharm
# and Spyder (open it, and run cell by cell); for Jupyter, `pip install jupytext`, then right-click, "Open With",
# "Notebook". As a script it says everything in the terminal and saves its figures beside the runs:
#
#     python examples/exposure_bias.py                             # about five minutes on two cores
#     EXPOSURE_RUNS=runs/demo python examples/exposure_bias.py     # the two runs that `make demo` left
#
# Runs and curves that are there already are not made again.

# %%
import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import ddpm_ip as ip

RUNS = Path(os.environ.get("EXPOSURE_RUNS", "runs/exposure-bias"))
SMALL = "EXPOSURE_SMALL" in os.environ  # so small that it shows nothing but that every cell runs
TRAINING, STEPS, N, WALKS, IMAGES = (4, 2, 16, 16, 16) if SMALL else (3000, 10, 1000, 500, 1024)
GAMMAS = {"ddpm": 0.0, "ddpm-ip": 0.1}  # the folders of the runs
SAMPLERS = {"ddim": ip.DDIM(), "fixed_small": ip.Ancestral("fixed_small")}

# %% [markdown]
# ## Two networks
#
# A network learns from real images, noised exactly: it sees `x_t = alpha_t x_0 + sigma_t eps` and is asked for `eps`.
# With input perturbation it is fed `alpha_t x_0 + sigma_t (eps + gamma xi)` and must still name `eps`, so it learns to
# stand states that hold a little too much noise.

# %%
CONFIG = {
    "data": {"name": "digits"},
    "model": {"in_channels": 1, "dim": 16, "dim_mults": [1, 2], "use_attn": [False, True], "num_res_blocks": 1}
    | {"dropout": 0.0, "num_groups": 8},
    "train": {"n_steps": TRAINING, "batch_size": 32, "flip": False, "ema_decay": 0.9 if SMALL else 0.995}
    | {"optim": {"lr": 1e-3}, "sample_freq": 0, "print_freq": 500},
}


def trained(name: str) -> ip.Run:
    """The run of this name: loaded, continued if it was stopped, or trained."""
    folder = RUNS / name
    if (folder / "ckpt").exists():
        return ip.load(folder).train()
    return ip.new(CONFIG, folder, perturbation={"name": "input", "gamma": GAMMAS[name]}).train()


runs = {name: trained(name) for name in GAMMAS}

# %% [markdown]
# ## What sampling does to them
#
# In sampling a network is asked about states that it made itself, and each holds the errors of all steps before: this
# is exposure bias. Three ways to see it, each against real noisy images of the same level:
#
# * `eps_norm.ratio`: how long the predicted noise is in sampling, over its length on real states. No bias: 1.
# * `drift`: walks that begin at noised real images; how far apart the states lie, less how far apart real ones do. No
#   bias: 0. Below 0, the states have lost variance; above 0, they hold too much.
# * `energy.xt.haar3.ratio`: the energy of the finest detail in the states, over that of real ones. No bias: 1. (The
#   other bands, `haar0` for the coarsest to `haar2`, are there, too.)
#
# The norm alone cannot tell too much noise from too little detail: read it together with the other two.

# %%
PANELS = ("eps_norm.ratio", "drift", "energy.xt.haar3.ratio", "energy.xt.haar0.ratio")


def exposure(name: str, sampler: str, corrections: object = ()) -> ip.Exposure:
    """Exposure bias of a run, from its file or measured."""
    found = runs[name].exposure(
        "eps_norm", "delta", "energy", n=N, sampler=SAMPLERS[sampler], steps=STEPS, corrections=corrections,
        block=min(N, 250),
    )  # fmt: skip
    return replace(found, label=f"{name}: {found.label}")


def draw(stem: str, exposures: list[ip.Exposure]) -> None:
    """A panel a curve, a line an exposure, with 95 % bands: saved, and shown in a notebook."""
    chosen = [replace(e, curves={k: e.curves[k] for k in PANELS if k in e.curves}) for e in exposures]
    files = ip.write_figures(chosen, RUNS / stem)
    if "ipykernel" in sys.modules:
        shown = importlib.import_module("IPython.display")
        shown.display(shown.SVG(filename=str(files[0])))
    print("figure:", files[1])


before = {(name, sampler): exposure(name, sampler) for name in GAMMAS for sampler in SAMPLERS}
draw("exposure", list(before.values()))

# %% [markdown]
# ## Calibrate
#
# What a true state should hold is known without the network: `alpha^2 E[x_0] + sigma^2 E[eps]` in every band of
# frequencies. `calibrate` lets walks go side by side, compares them with that after each step, fits corrections
# (factors of the noise, gains by band, ...), and judges each by the images that it makes: here by their distance in
# pixels, since no network for features is needed for that. It leaves a file beside the weights, and
# `corrections="auto"` stands for what is in it.

# %%
calibrations = {
    (name, sampler): runs[name].calibrate(
        WALKS, extractor="pixels", sampler=SAMPLERS[sampler], steps=STEPS, block=min(WALKS, 100)
    )
    for name in GAMMAS
    for sampler in SAMPLERS
}
for (name, _), found in calibrations.items():
    print(f"{name}: {found!r}")
print()
print(calibrations["ddpm-ip", "fixed_small"])

# %% [markdown]
# ## Sample with and without it
#
# The same noise, the same number of network evaluations. The calibration used other noise (its seed is 1, here it is
# 0), but the same real images.

# %%
after = {(name, sampler): exposure(name, sampler, "auto") for name, sampler in before}
draw("calibrated", [e for key in before for e in (before[key], after[key])])


def distance(name: str, sampler: str, corrections: object = ()) -> float:
    """FD in pixels of images to the training images: lower is better, and it is not FID."""
    settings = {"sampler": SAMPLERS[sampler], "steps": STEPS, "corrections": corrections, "block": min(IMAGES, 256)}
    return ip.measure(runs[name].sample(IMAGES, **settings), runs[name], features="pixels").values["FD-pixels"]


distances = {key: (distance(*key), distance(*key, "auto")) for key in before}

# %% [markdown]
# ## What it showed


# %%
def at_end(exposure: ip.Exposure, curve: str) -> float:
    """The value at the smallest time."""
    found = exposure.curves[curve]
    return min(zip(found.t, found.value, strict=True))[1]


LAST = ("eps_norm.ratio", "drift", "energy.xt.haar3.ratio")
heads = ("norm ratio", "drift", "finest band", "FD-pixels")
print(f"\n{STEPS} steps, at the end of the walk; each without a correction -> with auto")
print(f"{'run':8} {'sampler':12}" + "".join(f"{head:>20}" for head in heads))
for key in before:
    pairs = [*((at_end(before[key], curve), at_end(after[key], curve)) for curve in LAST), distances[key]]
    print(f"{key[0]:8} {key[1]:12}" + "".join(f"{f'{a:.3f} -> {b:.3f}':>20}" for a, b in pairs))

nearer = sum(abs(at_end(after[key], "drift")) < abs(at_end(before[key], "drift")) for key in before)
better = sum(f1 < f0 for f0, f1 in distances.values())
away = sum(abs(at_end(after[key], LAST[0]) - 1) > abs(at_end(before[key], LAST[0]) - 1) for key in before)
print(f"With auto the drift ends nearer to 0 in {nearer} of {len(before)}, and the distance is lower in {better}.")
print(
    f"The norm ratio ends farther from 1 in {away}: it does not tell states with too much noise from states that lack "
    "detail. The energies by band do (docs/exposure-bias.md)."
)
if SMALL:
    print(f"Networks of {TRAINING} steps show nothing but that every cell runs.")

# %% [markdown]
# ## The picture
#
# The same noise by both networks: rows are ddpm, ddpm with auto, ddpm-ip, ddpm-ip with auto.

# %%
rows = [
    runs[name].sample(12, sampler=ip.DDIM(), steps=STEPS, corrections=corrections).images
    for name in GAMMAS
    for corrections in ((), "auto")
]
ip.grid(np.concatenate(rows), columns=12).save(RUNS / "digits.png")
print("picture:", RUNS / "digits.png")
