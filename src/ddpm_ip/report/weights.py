"""What several weights of one run are called: by the average that they are, by their step, or else by their hash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ddpm_ip.report.run import Run

DECAYS = "train.ema_decay"


def weights_names(run: Run, known: Mapping[str | None, Any]) -> dict[str | None, str]:
    """Short names of some weights, no two the same.

    Args:
        run: whose weights they are.
        known: by their SHA-256 what numbers of them say: ``decay 0.999`` of a further average, True of the first one,
            anything else where nothing is known.
    """
    averages = {digest: _average(run, digest, said) for digest, said in known.items()}
    steps = {digest: _step(run.checkpoints.get(digest or "")) for digest in known}
    both = {d: f"{averages[d]}, {steps[d]}" if averages[d] and steps[d] else None for d in known}
    names: dict[str | None, str] = {}
    for digest in known:
        choices = [by[digest] for by in (averages, steps, both) if list(by.values()).count(by[digest]) == 1]
        names[digest] = next(filter(None, choices), None) or (digest or "unknown")[:8]
    return names


def _average(run: Run, digest: str | None, said: Any) -> str | None:
    """``decay 0.9999``, as far as a number or the file of the weights says which."""
    if isinstance(said, str) and said != "unknown":
        return said
    there = run.settings.get(DECAYS)
    decays = there if isinstance(there, list) else [there]
    part = re.search(r"/ema(?:_(\d+))?\.safetensors$", run.checkpoints.get(digest or "", ""))
    if part is None and said is not True:
        return None
    number = int(part[1] or 1) if part else 1
    decay = decays[number - 1] if 0 < number <= len(decays) else None
    return f"decay {decay!r}" if isinstance(decay, int | float) and not isinstance(decay, bool) else None


def _step(where: str | None) -> str | None:
    found = re.match(r"(?:ckpt|snapshots)/step0*(\d+)/", where or "")
    return f"step {found[1]}" if found else None
