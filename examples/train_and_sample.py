# %% [markdown]
# # Train a diffusion model with input perturbation, and sample it
#
# Handwritten digits of 8 x 8 pixels, which come with the package: two minutes on two cores. A file with `# %%` cells is
# a notebook for VS Code, PyCharm and Spyder; for Jupyter, `pip install jupytext`, then right-click, "Open With",
# "Notebook". As a script it says the same in the terminal, and saves its pictures beside the run:
#
#     python examples/train_and_sample.py

# %%
import os
from pathlib import Path

import ddpm_ip as ip

FOLDER = Path(os.environ.get("EXAMPLE_RUNS", "runs/examples")) / "digits"
STEPS = int(os.environ.get("EXAMPLE_STEPS", 3000))

# %% [markdown]
# ## Train
#
# A configuration is a file or plain values, and any part of it can be an object. The network is fed
# `alpha_t x_0 + sigma_t (eps + gamma xi)` and still has to name `eps`: that is input perturbation, and `gamma` is its
# strength. A folder that is there already is continued, never overwritten.

# %%
CONFIG = {
    "data": {"name": "digits"},
    "model": {"in_channels": 1, "dim": 16, "dim_mults": [1, 2], "use_attn": [False, True], "num_res_blocks": 1}
    | {"num_groups": 8, "dropout": 0.0},
    "train": {"n_steps": STEPS, "batch_size": 32, "flip": False, "ema_decay": 0.995, "optim": {"lr": 1e-3}}
    | {"print_freq": max(1, STEPS // 10), "sample_freq": 0},
}
begun = (FOLDER / "ckpt").exists()
run = ip.load(FOLDER) if begun else ip.new(CONFIG, FOLDER, perturbation=ip.InputPerturbation(gamma=0.1))

# %% [markdown]
# A callback is told of each log line. It can draw, report, or end the training: here as soon as the loss is low.


# %%
def watch(progress: ip.Progress) -> None:
    """Shows where training stands, and ends it when there is little left to learn."""
    print(f"step {progress.step:5} of {progress.n_steps}: loss {progress.loss:.4f}")
    if progress.loss < 0.05:
        progress.stop()


run.train(callback=watch)
print(run)

# %% [markdown]
# ## Sample
#
# Images are made when they are looked at, and are a function of (weights, settings, seed, index). Whatever is not given
# here is taken from the configuration.

# %%
walk = run.sample(64, sampler=ip.DPMSolver(order=2), steps=20)
print(walk)
walk.grid().save(FOLDER / "grid.png")  # a notebook shows `walk` as this picture

# %% [markdown]
# Of more images than fit into memory take one block at a time, as `uint8` (block, channels, height, width).

# %%
mean = sum(block.sum() for block in walk.blocks()) / (walk.n * 64 * 255)
print(f"the mean pixel is {mean:.3f}; of the digits it is {run.config.data.open().pixels.mean() / 255:.3f}")

# %% [markdown]
# ## Look into the walk, and correct it
#
# Each state is there, with what the network said on the way. Epsilon scaling takes away a little of the noise that is
# predicted, since in sampling the network predicts more of it than in training (exposure bias).

# %%
for state in run.sample(16, sampler=ip.DDIM(), steps=5, block=16).states():
    print(f"t {state.t:4.0f}  standard deviation {state.xt.std():.3f}")
scaled = run.sample(64, sampler=ip.DDIM(), steps=10, corrections=[ip.EpsilonScaling(1.01)])
print("with epsilon scaling:", ip.measure(scaled, run, features="pixels", metrics=["fid"]).values)

# %% [markdown]
# ## The picture
#
# From noise to digits: a row an image, a column a time.

# %%
picture = walk.strips(n=8, frames=10)
picture.save(FOLDER / "strips.png")
print("pictures:", FOLDER / "grid.png", FOLDER / "strips.png")
