# %% [markdown]
# # How strong should the perturbation be? Gammas compared on handwritten digits
#
# Networks that differ in `gamma` alone: same images, same times, same noise, same steps. DDPM-IP (Ning et al. 2023)
# perturbs what the network is fed by `gamma` times noise of its own; 0 is plain DDPM, 0.1 is the paper's choice. One
# seed decides nothing: `ddpm-ip sweep` does the same over several, with the spread in each cell.
#
#     python examples/compare_gammas.py     # three minutes on two cores; then: open runs/examples/gammas/gammas.png

# %%
import os
from pathlib import Path

import numpy as np

import ddpm_ip as ip

FOLDER = Path(os.environ.get("EXAMPLE_RUNS", "runs/examples")) / "gammas"
STEPS = int(os.environ.get("EXAMPLE_STEPS", 2000))
N = 1000 if STEPS >= 1000 else 20  # images behind each number
GAMMAS = (0.0, 0.1, 0.2)
SAMPLINGS = {
    "ancestral, 10 steps": {"sampler": ip.Ancestral("fixed_small"), "steps": 10},
    "DDIM, 10 steps": {"sampler": ip.DDIM(), "steps": 10},
    "DPM-Solver++, 10 steps": {"sampler": ip.DPMSolver(order=2), "steps": 10},
}

# %% [markdown]
# ## Train one network for each
#
# A run that is there already is loaded, and continued if it was stopped.

# %%
CONFIG = {
    "data": {"name": "digits"},
    "model": {"in_channels": 1, "dim": 16, "dim_mults": [1, 2], "use_attn": [False, True], "num_res_blocks": 1}
    | {"num_groups": 8, "dropout": 0.0},
    "train": {"n_steps": STEPS, "batch_size": 32, "flip": False, "ema_decay": 0.995, "optim": {"lr": 1e-3}}
    | {"sample_freq": 0, "print_freq": 500},
}


def trained(gamma: float) -> ip.Run:
    """The run of this gamma."""
    folder = FOLDER / f"gamma-{gamma}"
    if (folder / "ckpt").exists():
        return ip.load(folder).train()
    return ip.new(CONFIG, folder, perturbation=ip.InputPerturbation(gamma)).train()


runs = {gamma: trained(gamma) for gamma in GAMMAS}

# %% [markdown]
# ## Measure
#
# FD-pixels, the Fréchet distance in raw pixels: lower is better. It needs no network for features, and is not FID. Do
# not compare the losses of these runs: what is asked of a perturbed network is harder.

# %%
distances = {
    (gamma, name): run.evaluate(N, "pixels", ["fid"], **settings).values["FD-pixels"]
    for gamma, run in runs.items()
    for name, settings in SAMPLINGS.items()
}
print(f"\n{'FD-pixels':24}" + "".join(f"{f'gamma {gamma:g}':>12}" for gamma in GAMMAS))
for name in SAMPLINGS:
    best = min(GAMMAS, key=lambda gamma: distances[gamma, name])
    cells = (f"{distances[gamma, name]:.3f}{'*' if gamma == best else ' '}" for gamma in GAMMAS)
    print(f"{name:24}" + "".join(f"{cell:>12}" for cell in cells))

# %% [markdown]
# ## The picture
#
# The same noise by each network: a row a gamma.

# %%
images = [run.sample(12, sampler=ip.DDIM(), steps=10).images for run in runs.values()]
picture = ip.grid(np.concatenate(images), columns=12)
picture.save(FOLDER / "gammas.png")
print("picture, rows are gamma", ", ".join(f"{gamma:g}" for gamma in GAMMAS) + ":", FOLDER / "gammas.png")
