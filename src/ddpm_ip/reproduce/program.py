"""The program ``reproduce``: a published table made again, from training to the numbers beside those published.

It is a sweep of a few runs (:mod:`ddpm_ip.sweep.program`), so a call that was ended continues, and what came out is:

    SWEEP_DIR/paper_table.{txt,md,csv}       measured and published, one above the other, and the difference
    SWEEP_DIR/gamma=0,seed=0/ ...            the runs, each with its table
    SWEEP_DIR/report.html, sweep.md, ...     what a sweep leaves
"""

from __future__ import annotations

from pathlib import Path

import torch

from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.reproduce.beside import beside, read_grid, write
from ddpm_ip.reproduce.recipes import Recipe
from ddpm_ip.settings import changes, kind
from ddpm_ip.sweep.plan import Asked
from ddpm_ip.sweep.program import Setup, sweep
from ddpm_ip.table.layout import as_text


def reproduce(name: str, recipe: Recipe, asked: Asked, folder: Path, setup: Setup) -> int:
    """Makes what is missing of a reproduction, and tells what came out.

    Args:
        name: of the recipe, and of the files.
        recipe: what is reproduced.
        asked: its sweep, perhaps with other settings, which the result names.
        folder: of the sweep.
        setup: what the sweep is made with.

    Returns:
        The exit code of the sweep.

    Raises:
        UserError: as of :func:`ddpm_ip.sweep.program.sweep`; if weights of the evaluator are missing, with how to get
            them, before data are fetched or anything is begun.
    """
    try:
        find_extractor(recipe.extractor, torch.device("cpu"))
    except UserError as error:
        raise UserError(
            f"`ddpm-ip reproduce {name}` does not begin without the features of what was published (--smoke rehearses "
            f"the way with others, --show prints the commands of its parts): {error}"
        ) from None
    setup.say(f"{name}: {recipe.what}")
    others = changed(recipe, asked)
    for text in others:
        setup.say(text)
    code = sweep(asked, folder, setup)
    if code == 0:
        grid = beside([read_grid(folder / run.name) for run in asked.runs], others)
        files = write(folder, name, grid)
        setup.say("\n".join([as_text(grid), *map(str, files)]))
    return code


def changed(recipe: Recipe, asked: Asked) -> list[str]:
    """In which settings that matter a reproduction is none, as a sentence; none if there are no such."""
    was, now = (one.runs[0].config.to_dict() for one in (recipe.asked({}, {}), asked))
    matters = [str(c) for c in changes(was, now) if c.key == "train.n_steps" or kind(c.key) == "method"]
    return [f"Not trained as published: {', '.join(matters)}."] if matters else []
