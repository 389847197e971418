"""What becomes of the evaluations during a training: their curve, the best weights, and a warning when it turns."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ddpm_ip.errors import CheckpointError
from ddpm_ip.train import checkpoint
from ddpm_ip.train.folder import RunFolder
from ddpm_ip.train.log import drop_after

log = logging.getLogger("ddpm_ip.train")

IN_A_ROW = 3  # evaluations, each worse than the one before, that are a turn and not noise
HIGHER_IS_BETTER = ("IS", "CS", "precision", "recall")


class Watch:
    """The evaluations of a run, on the main process.

    The first metric decides what is best.

    Args:
        folder: of the run; gets ``evaluations.jsonl`` and ``best/``, a checkpoint of the best weights.
        step: where the run (re)starts: later evaluations, of steps that are done again, are dropped.
    """

    def __init__(self, folder: RunFolder, step: int) -> None:
        self._folder = folder
        drop_after(folder.evaluations, step)
        self._values = [v for line in _lines(folder) if (v := _first(line["values"])) is not None]

    def note(self, step: int, evaluation: Mapping[str, Any], save: Callable[[], None]) -> None:
        """Takes in an evaluation.

        Args:
            step: optimizer steps done.
            evaluation: with ``values``, ``protocol`` and ``warnings``.
            save: saves the weights as the best; called if they are.
        """
        if (value := _first(evaluation["values"])) is None:
            return
        with self._folder.evaluations.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **evaluation}) + "\n")
        name = next(iter(evaluation["values"]))
        sign = -1 if name.split("-")[0].split("_")[0] in HIGHER_IS_BETTER else 1
        best = not self._values or sign * value < min(sign * v for v in self._values)
        self._values.append(value)
        log.info("step %d  %s%s", step, _text(evaluation["values"]), "  the best so far" if best else "")
        if best:
            save()
        last = [sign * v for v in self._values[-IN_A_ROW - 1 :]]
        if len(last) == IN_A_ROW + 1 and last == sorted(last) and len(set(last)) == len(last):
            log.warning(
                "%s has become worse %d evaluations in a row: the run may be overfitting or diverging; the best "
                "weights are kept in %s",
                name, IN_A_ROW, self._folder.best,
            )  # fmt: skip


def save_best(folder: RunFolder, step: int, tensors: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Keeps a checkpoint as the best, in place of the one before; if it cannot be written, training goes on."""
    try:
        checkpoint.save(folder.best, step, tensors, meta)
    except CheckpointError as error:
        log.error("%s. The best weights so far stay", error)
    else:
        checkpoint.prune(folder.best, 1, 0)


def _lines(folder: RunFolder) -> list[dict[str, Any]]:
    if not folder.evaluations.exists():
        return []
    return [json.loads(line) for line in folder.evaluations.read_text(encoding="utf-8").splitlines()]


def _first(values: Mapping[str, float]) -> float | None:
    return next(iter(values.values()), None)


def _text(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
