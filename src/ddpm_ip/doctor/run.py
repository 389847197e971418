"""A run: its checkpoints, and the average of the newest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ddpm_ip.doctor.configuration import check_average
from ddpm_ip.doctor.findings import Finding
from ddpm_ip.errors import CheckpointError


def check_run(run: Path) -> Iterable[Finding]:
    """Whether the newest checkpoint of a run is whole, and whether the average in it has forgotten its start."""
    from ddpm_ip.config import load
    from ddpm_ip.run.checkpoint import newest

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
            "note", "run", f"{last} is damaged; sampling takes {found.path.name}", "resume with -r latest to replace it"
        )
    if found.step < (config := load(run / "config.yaml")).train.n_steps:
        yield from check_average(config, "newest checkpoint", found.step)
