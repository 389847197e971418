"""The parts of a reproduction as a shell script, so that each can be run alone, here or elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ddpm_ip.evaluate.extractors.weights import INCEPTION, find_weights, weights_folders
from ddpm_ip.reproduce.recipes import Recipe
from ddpm_ip.sweep.plan import Asked, in_words
from ddpm_ip.sweep.stages import Stages


def script(name: str, recipe: Recipe, asked: Asked, folder: Path, together: list[str]) -> str:
    """A script for bash that does what ``ddpm-ip reproduce NAME`` does, one command a part.

    Args:
        name: of the recipe.
        recipe: what is reproduced.
        asked: the sweep of the recipe.
        folder: of the sweep.
        together: the words of the command that puts the runs together.
    """
    stages = Stages(asked, folder)
    parts = [
        f"#!/usr/bin/env bash\n# {name}: {recipe.what}.\n"
        "# Each command continues what is there. Those of different runs may run at the same time.\nset -euo pipefail"
    ]
    if recipe.extractor == "inception":
        folder_of_weights = weights_folders()[0]
        weights = find_weights(INCEPTION) or folder_of_weights / INCEPTION.name
        parts.append(
            f"# The {INCEPTION.what}, {INCEPTION.megabytes} MB, where they are not there yet; they are used by "
            "torch-fidelity (pip install --no-deps torch-fidelity).\n"
            f"[ -e {shlex.quote(str(weights))} ] || {INCEPTION.command(folder_of_weights)}"
        )
    for run in asked.runs:
        settings = {**asked.options, **run.values, "seed": run.seed}
        given = [word for key, value in settings.items() for word in (f"--{key}", in_words(value))]
        train = ["train", "-c", asked.origin, "-e", str(folder / run.name), "-r", "latest", *given]
        measure = [_line(stage.words) for stage in stages.measuring(run)]
        parts.append("\n".join([f"# {run.name}", _line(train), *measure]))
    parts.append(f"# Both beside what was published, and a page of them.\n{_line(together)}")
    return "\n\n".join(parts)


def _line(words: Sequence[str]) -> str:
    return shlex.join(["ddpm-ip", *words])
