"""Judging a model: sample it under each of several settings, and measure how far its images are from the data.

The rows go to ``results.json`` in the run's folder, each with the protocol it was measured under. What is there already
is not made again.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.evaluate.features import Pixels, described, pixels
from ddpm_ip.evaluate.metrics import Moments, frechet_distance, moments
from ddpm_ip.images import UInt8, grid, save_png
from ddpm_ip.run.weights import read_weights
from ddpm_ip.sample.program import SampleOptions, make_generator
from ddpm_ip.sampler import VarType

log = logging.getLogger("ddpm_ip.evaluate")

METRIC = "FD-pixels"


def judge(
    config: Config,
    run: Path,
    reference: ImageSet,
    var_types: Sequence[VarType],
    steps: Sequence[int],
    n_samples: int,
    accelerator: Accelerator,
    batch_size: int = 256,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """FD-pixels of the run's newest averaged weights, for every variance and number of steps.

    Args:
        config: of the run.
        run: its folder; gets ``results.json`` and ``eval/*.png``.
        reference: the real images.
        var_types, steps: the settings; times are spaced by ``uniform-linspace``.
        n_samples: images a setting.
        accelerator: where.
        batch_size: the block.
        seed: of the samples.

    Returns:
        The rows, also those measured before.
    """
    weights, digest = read_weights(run)
    path = run / "results.json"
    rows = [r for r in _read(path) if r["weights"] == digest]  # numbers of older weights say nothing about these
    real = real_moments(reference)
    (run / "eval").mkdir(exist_ok=True)
    todo = [(v, k) for v in var_types for k in steps]
    for var_type, k in tqdm(todo, desc=f"judging {run.name}", unit="setting", disable=None):
        options = SampleOptions(n_samples, seed, var_type, batch_size, "uniform-linspace", k)
        row = _protocol(options, digest, reference)
        if any(all(r.get(key) == value for key, value in row.items()) for r in rows):
            continue
        generator = make_generator(config, weights, options, accelerator)
        fake, first = Moments(real.dimensions), None
        for block in range(-(-n_samples // batch_size)):
            images = generator.images(block)[: n_samples - block * batch_size]
            first = images if first is None else first
            fake.add(pixels(images))
        assert first is not None
        picture = f"eval/{var_type}-{k}.png"
        save_png(grid(first[:64]), run / picture)
        rows.append({**row, "value": frechet_distance(real, fake), "grid": picture})
        _write(path, rows)
        log.info("%s, %d steps: %s %.4f over %d images", var_type, k, METRIC, rows[-1]["value"], n_samples)
    return rows


def real_moments(images: ImageSet) -> Moments:
    """Pixel moments of a whole set."""
    n = len(images)
    batches = (pixels(np.asarray(images.pixels[i : i + 4096])) for i in range(0, n, 4096))
    return moments(batches, math.prod(images.shape))


def floor(images: ImageSet, seed: int = 0) -> float:
    """What two random halves of the real data are apart: differences far below it mean nothing."""
    order = np.random.default_rng(seed).permutation(len(images))
    halves: list[UInt8] = [np.asarray(images.pixels[half]) for half in np.array_split(order, 2)]
    a, b = (moments([pixels(half)], math.prod(images.shape)) for half in halves)
    return frechet_distance(a, b)


def _protocol(options: SampleOptions, weights: str, reference: ImageSet) -> dict[str, Any]:
    return {
        "metric": METRIC,
        "var_type": options.var_type,
        "respace_type": options.respace_type,
        "steps": options.respace_steps,
        "n_samples": options.n_samples,
        "seed": options.seed,
        "block": options.batch_size,
        "sampler": "ancestral",
        "weights": weights,
        "reference": reference.name,
        "reference_sha256": reference.fingerprint,
        "n_reference": len(reference),
        "extractor": described(Pixels.name, Pixels(torch.device("cpu")).identity()),
        "protocol": f"Fréchet distance in pixels in [0, 1], {options.n_samples} samples (rounded to uint8, averaged "
        f"weights) against {len(reference)} images of {reference.name}",
    }


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    os.replace(partial, path)
