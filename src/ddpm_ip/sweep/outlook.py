"""What a sweep will take, told before its first run."""

from __future__ import annotations

import json
from pathlib import Path

from ddpm_ip.estimate import Disk, Sizes, disk_of_run, line, size, used
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.sweep.plan import Asked, SweepRun
from ddpm_ip.sweep.stages import Stages


def outlook(asked: Asked, stages: Stages, at_once: int) -> list[str]:
    """Lines for people: what the runs that are not trained yet take, and if the disk has less; none if all are trained.

    Args:
        asked: the sweep.
        stages: what of its runs is missing.
        at_once: how many are made at a time.

    Raises:
        UserError: the folder of a run holds another.
    """
    missing = [run for run in asked.runs if not stages.is_trained(run)]
    if not missing:
        return []
    known: dict[str, Sizes] = {}
    sizes = [_sizes(run, known) for run in missing]
    needed = sum(_still_written(stages.folder, *pair) for pair in zip(missing, sizes, strict=True))
    largest = max(sizes, key=lambda one: one.checkpoint)
    images = ", and the images of the tables besides" if "--keep_images" in asked.table else ""
    many = f"{len(missing)} run{'s' * (len(missing) > 1)}"
    what = f"{many} with checkpoints of {size(largest.checkpoint)}{images}"
    disk = Disk(stages.folder, needed, at_once * largest.checkpoint, what)
    told = f"time told after the first run, and of each in its log ({stages.folder / 'logs'})"
    least = largest.checkpoint + largest.gradients
    memory = f"tensors in memory at least {size(least)} a run, {at_once} at a time, with activations on top"
    said = disk.warning("lower train.keep_last, raise train.keep_every, or choose another disk with -e")
    return [line(told, memory, disk), *([said] if said else [])]


def _sizes(run: SweepRun, known: dict[str, Sizes]) -> Sizes:
    """Those of a run; runs that differ in seed or perturbation share them."""
    tree = run.config.to_dict()
    key = json.dumps([tree[section] for section in ("model", "classes", "diffusion", "train")])
    if key not in known:
        known[key] = Sizes.of(run.config)
    return known[key]


def _still_written(sweep: Path, run: SweepRun, sizes: Sizes) -> int:
    folder = RunFolder(sweep / run.name)
    there = used(folder.checkpoints, folder.best, folder.snapshots, folder.samples)
    return max(0, disk_of_run(run.config, sizes) - there)
