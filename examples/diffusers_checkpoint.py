# %% [markdown]
# # Samplers and corrections for a checkpoint of diffusers
#
# Any `UNet2DModel` with a DDPM or DDIM scheduler becomes a run: a folder of `save_pretrained`, or its name on the hub.
# diffusers itself is not needed. Files of guided-diffusion (ADM) and DDPM-IP are loaded in the same way.
#
#     python examples/diffusers_checkpoint.py google/ddpm-cifar10-32     # needs `pip install "ddpm-ip[hub]"`
#     python examples/diffusers_checkpoint.py                            # a small one, made on the spot

# %%
import os
import sys
from pathlib import Path

import numpy as np

import ddpm_ip as ip

FOLDER = Path(os.environ.get("EXAMPLE_RUNS", "runs/examples")) / "diffusers"
STEPS = int(os.environ.get("EXAMPLE_STEPS", 1000))
SOURCE = next((text for text in sys.argv[1:] if not text.startswith("-")), None)  # a folder, or a name on the hub

# %% [markdown]
# Without a source a network is trained for a minute and exported, which gives the folder that
# `DDPMPipeline.save_pretrained` would.

# %%
if SOURCE is None:
    SOURCE = str(FOLDER / "pipeline")
    if not Path(SOURCE).exists():
        model = {"in_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True], "num_res_blocks": 1}
        train = {"n_steps": STEPS, "batch_size": 32, "flip": False, "ema_decay": 0.99, "optim": {"lr": 2e-3}}
        config = {"data": {"name": "digits"}, "model": model, "train": {**train, "print_freq": 500, "sample_freq": 0}}
        ip.new(config, FOLDER / "run").train().export(SOURCE)
    print("the folder of a DDPMPipeline:", *sorted(str(p.relative_to(SOURCE)) for p in Path(SOURCE).rglob("*.*")))

# %% [markdown]
# ## Load it
#
# What the folder says of itself counts: sizes, schedule, what the network predicts. What it leaves open is assumed, and
# said.

# %%
run = ip.load(SOURCE)
print(run)

# %% [markdown]
# ## Sample it
#
# With any sampler, at any number of steps, with any corrections; the same noise each time, so that images compare.

# %%
N = 12
samplings = {
    "DDPM": {"sampler": ip.Ancestral("fixed_small"), "steps": 10},
    "DDIM": {"sampler": ip.DDIM(), "steps": 10},
    "DPM-Solver++": {"sampler": ip.DPMSolver(order=2), "steps": 10, "spacing": "logsnr"},
    "DDIM, epsilon scaling": {"sampler": ip.DDIM(), "steps": 10, "corrections": [ip.EpsilonScaling(1.01)]},
}
walks = {name: run.sample(N, **settings) for name, settings in samplings.items()}
for name, walk in walks.items():
    print(f"{name}: {walk!r}")

# %% [markdown]
# ## Or bring any network
#
# A function of `(x, t)` is enough: here the same network by hand, as you would wrap one of your own, or diffusers'
# `lambda x, t: unet(x, t).sample`. It gives the same images.

# %%
denoiser = ip.Denoiser(lambda x, t: run.denoiser.network(x, t), run.schedule)
own = ip.samples(denoiser, run.config.shape, N, sampler=ip.DDIM(), steps=10)
same = np.abs(own.images.astype(int) - walks["DDIM"].images).max()
print(f"the largest difference to the run's own images: {same} of 255")

# %% [markdown]
# ## The picture
#
# A row a way to sample, a column a noise.

# %%
picture = ip.grid(np.concatenate([walk.images for walk in walks.values()]), columns=N)
picture.save(FOLDER / "samplers.png")
print("picture, rows are", ", ".join(walks) + ":", FOLDER / "samplers.png")
