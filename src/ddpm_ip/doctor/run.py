"""A run: its checkpoints, and the average of the newest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ddpm_ip.doctor.configuration import check_average
from ddpm_ip.doctor.findings import Finding
from ddpm_ip.errors import CheckpointError


def check_run(run: Path) -> Iterable[Finding]:
    """Whether the newest checkpoint of a run is whole, and whether the average in it has forgotten its start."""
    from ddpm_ip.config import from_dict
    from ddpm_ip.run.checkpoint import newest
    from ddpm_ip.run.identity import of_meta, origin_in_words

    if not run.is_dir():
        yield Finding("problem", "run", f"{run} does not exist", "give the folder that training wrote (its EXP_DIR)")
        return
    try:
        found = newest(run / "ckpt")
    except CheckpointError as error:
        yield Finding("problem", "run", str(error))
        return
    if found is None:
        yield Finding(
            "problem", "run", f"{run} has no checkpoint", "train until train.save_freq, or look at its log.txt"
        )
        return
    last = max(path.name for path in (run / "ckpt").glob("step*"))
    if found.path.name == last:
        yield Finding("OK", "run", f"{found.path} is whole")
    else:
        yield Finding(
            "note",
            "run",
            f"{last} is damaged; training continues from {found.path.name}",
            "continue with -r latest to replace it",
        )
    own = of_meta(found.meta, found.path)
    if own is None:
        return
    if own.imported is not None:
        yield Finding(
            "note",
            "run",
            f"its first weights were {origin_in_words(own.imported)}",
            "say so where its numbers are told",
        )
    for change in own.history:
        text = f"settings changed at step {change['step']}: {'; '.join(map(str, change['changes']))}"
        yield Finding("note", "run", text, "say so where its numbers are told")
    config = from_dict(own.config, f"the configuration in {own.origin}")
    begun_with = own.imported or own.init_from  # what was trained already
    if found.step < config.train.n_steps and begun_with is None:
        yield from check_average(config, "newest checkpoint", found.step)
