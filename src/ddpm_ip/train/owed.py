"""What a kill prevented after a checkpoint: the grid made with its weights, or its numbers of ``train.eval``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from accelerate.utils import broadcast_object_list

from ddpm_ip.config import Config
from ddpm_ip.errors import UserError
from ddpm_ip.files import NUMBER, read_lines
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.train.run import Run
from ddpm_ip.train.start import Settled

log = logging.getLogger("ddpm_ip.train")


MEASURED = ("train.eval", "train.sample", "train.n_samples", "sampling", "data")  # settings of grids and numbers


class Owed(NamedTuple):
    """What a continued run makes first; false if it is nothing.

    Attributes:
        grid: the picture of samples at the step where it continues, if it is missing.
        evaluations: the checkpoints, oldest first, whose numbers are missing.
    """

    grid: list[Path]
    evaluations: list[Path]

    def __bool__(self) -> bool:
        return bool(self.grid or self.evaluations)


def owed(run: Run, settled: Settled) -> Owed:
    """What a run lacks that continues one of its own checkpoints and measures as it did; all processes agree."""
    found = [Owed([], [])]
    start = settled.start
    same = not any(change.key.startswith(MEASURED) for change in settled.changes)
    if run.is_main and start is not None and start.path.parent == run.folder.checkpoints and same:
        grid = run.folder.samples / f"step{start.step:08d}.png"
        wanted = start.step > 0 and is_due(start.step, run.config.train.sample_freq, run.config)
        found = [Owed([grid] if wanted and not grid.exists() else [], _unjudged(run.config, run.folder, start.step))]
    broadcast_object_list(found)
    if found[0]:
        log.info("made up for, since the run ended before: %s", _text(found[0]))
    return found[0]


def is_due(step: int, every: int, config: Config) -> bool:
    """Whether something that is done every so many steps (0: never) is done after this one; after the last it is."""
    return every > 0 and (step % every == 0 or step == config.train.n_steps)


def _unjudged(config: Config, folder: RunFolder, step: int) -> list[Path]:
    """The whole checkpoints up to a step whose numbers are missing after the last ones that are there."""
    every = config.train.eval.every
    try:
        rows = read_lines(folder.evaluations, {"step": NUMBER}).rows if every and folder.evaluations.exists() else []
    except UserError:  # damaged: which numbers there were is not known
        return []
    last = max((row["step"] for row in rows if row["step"] <= step), default=0)
    paths = []
    for one in checkpoint.steps(folder.checkpoints):
        if last < one <= step and is_due(one, every, config):
            path = folder.checkpoints / f"step{one:08d}"
            try:
                checkpoint.read(path)
            except UserError as error:
                log.warning("no numbers of step %d: %s", one, error)
            else:
                paths.append(path)
    return paths


def _text(found: Owed) -> str:
    return ", ".join(
        [f"the samples {path.name}" for path in found.grid] + [f"the numbers of {p.name}" for p in found.evaluations]
    )
