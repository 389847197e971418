"""What was measured of weights that are no longer the newest of its run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddpm_ip.report.run import Run


def stale(run: Run) -> list[str]:
    """A sentence for each kind of number that is of an older checkpoint, or of weights that the folder has not.

    Of a run whose folder holds no checkpoints nothing is said: it was copied without them.
    """
    if not run.checkpoints:
        return []
    newest = max(filter(None, (run.step, *map(_step, run.checkpoints.values()))), default=0)
    kinds: dict[str, Sequence[str | None]] = {
        "results": [record.weights for record in run.results],
        "exposure curves": [exposure.weights for exposure in run.exposures],
        "calibrations": [calibration.weights for calibration in run.calibrations],
    }
    found = []
    for kind, weights in kinds.items():
        for digest in dict.fromkeys(filter(None, weights)):
            where = run.checkpoints.get(digest)
            if where is None:
                found.append(f"{kind} of weights {digest[:12]}, which are in none of its checkpoints")
            elif (step := _step(where)) is not None and step < newest:
                found.append(f"{kind} of step {step}, while the newest checkpoint is of step {newest}")
    return found


def _step(where: str) -> int | None:
    """Of a regular checkpoint; None of one that was chosen, such as the best."""
    found = re.match(r"ckpt/step(\d+)/", where)
    return int(found[1]) if found else None
