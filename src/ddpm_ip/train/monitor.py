"""Evaluations during training, computed while it continues: their curve, the best weights, a warning when it turns."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ddpm_ip.files import NUMBER, Shape, append_line, read_lines
from ddpm_ip.metric import higher_is_better
from ddpm_ip.plain import shown
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.log import Spare, drop_after
from ddpm_ip.run.record import Record, curve_id, records
from ddpm_ip.tracking.metrics import Metrics

log = logging.getLogger("ddpm_ip.train")

IN_A_ROW = 3  # evaluations, each worse than the one before, that are a turn and not noise
PENDING = 2  # evaluations, one that is worked out and one that is waiting for it


_LINE: Shape = {"step": NUMBER, "values": dict, "protocol": dict}


class Judged(Protocol):
    """Whose weights are judged."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""

    def snapshot(self) -> tuple[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]]:
        """The tensors and numbers of a checkpoint, in memory that no later step changes."""


class Watch:
    """The evaluations of a run, on the main process.

    One thread computes them, one after the other, while training continues. Their results are taken in on the main
    thread, in order and under the step whose weights were judged. The first metric decides what is best. Values compare
    only if that metric and the protocol are the same: with other settings of ``train.eval`` a new curve begins.

    Until it is known whether they are the best, the weights of each pending evaluation are held in CPU memory, as much
    as a checkpoint takes on the disk, at most :data:`PENDING` times. Should evaluations come faster than they are
    worked out, training waits for the oldest.

    While entered, evaluations may begin; on leaving, also by an error, what is pending is waited for and taken in. Only
    a second Ctrl-C gives up what has not begun.

    Args:
        folder: of the run; gets ``evaluations.jsonl`` and ``best/``, a checkpoint of the best weights.
        step: where the run (re)starts: later evaluations, of steps that are done again, are dropped,
            and the best weights set aside if they are of such a step.
        metrics: of the run, for its trackers and alerts; without it an alert is a line of the log.
    """

    def __init__(self, folder: RunFolder, step: int, metrics: Metrics | None = None) -> None:
        self._folder, self._metrics = folder, metrics
        self._spare = Spare() if metrics is None else metrics.spare
        drop_after(folder.evaluations, step, _LINE)
        checkpoint.set_aside(folder.best, step)
        points = _points(folder)
        self._curve: str | None = points[-1].record.curve() if points else None
        self._name: str | None = points[-1].name if points else None  # as the file has it
        found = {point.step: point.record.value for point in points if point.record.curve() == self._curve}
        self._values = list(found.values())
        kept = [found[step] for step in checkpoint.steps(folder.best) if step in found]
        self._best = kept[-1] if kept else None  # what the weights in best/ are worth
        self._warned: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "evaluation")
        self._pending: deque[tuple[int, Future[Any], Callable[[], bool]]] = deque()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pending:
            log.info("waiting for the numbers of %d evaluations", len(self._pending))
        if kind is not None and not issubclass(kind, Exception):
            self._thread.shutdown(cancel_futures=True)
            self._pending = deque(one for one in self._pending if not one[1].cancelled())
        try:
            self._take_in(wait_for=len(self._pending))
        finally:
            self._thread.shutdown(cancel_futures=True)

    @property
    def pending(self) -> list[int]:
        """The steps whose numbers are not there yet."""
        return [step for step, _, _ in self._pending]

    def make_room(self) -> None:
        """Waits until another evaluation may begin: before its samples are made, since they take memory, too.

        Raises:
            Exception: what an earlier ``conclude`` raised.
        """
        self._take_in(wait_for=len(self._pending) - PENDING + 1)

    def begin(self, state: Judged, conclude: Callable[[], Any]) -> None:
        """Has an evaluation of the present weights worked out.

        Args:
            state: copied, since training continues; or a checkpoint.
            conclude: gives the evaluation, see :meth:`note`, in the thread; must not touch a GPU, since the main thread
                may be capturing a CUDA graph.
        """
        save = partial(save_best, self._folder, state.step, *state.snapshot())
        self._pending.append((state.step, self._thread.submit(conclude), save))

    def poll(self) -> None:
        """Takes in what has been worked out since the last call; waits for nothing.

        Raises:
            Exception: what a ``conclude`` raised.
        """
        self._take_in(wait_for=0)

    def _take_in(self, wait_for: int) -> None:
        """Takes in the oldest so many evaluations, and those after them that are ready, in order."""
        while self._pending and (wait_for > 0 or self._pending[0][1].done()):
            step, evaluation, save = self._pending.popleft()
            wait_for -= 1
            try:
                found = evaluation.result()
            except OSError as error:
                self.pass_over(error)
            else:
                self.note(step, found.to_dict(), save)

    def pass_over(self, error: OSError) -> None:
        """Does without an evaluation for whose temporary files there was no room, and warns of the first."""
        self._spare.tell("an evaluation", error)

    def note(self, step: int, evaluation: Mapping[str, Any], save: Callable[[], bool]) -> None:
        """Takes in an evaluation.

        Args:
            step: optimizer steps done.
            evaluation: with ``values``, ``protocol`` and ``warnings``.
            save: saves the weights as the best, and says whether it could; called if they are.
        """
        if not (numbers := records(evaluation, f"the evaluation of step {step}")):
            return
        first = numbers[0]
        self._begin_again_if(first)
        for text in evaluation["warnings"]:
            if text not in self._warned:
                log.warning("train.eval: %s", text)
                self._warned.add(text)
        if self._metrics is not None:
            self._metrics.evaluation(step, evaluation["values"])
        sign, value = -1 if higher_is_better(first.metric) else 1, first.value
        best = self._best is None or sign * value < sign * self._best
        self._values.append(value)
        log.info("step %d  %s%s", step, _text(evaluation["values"]), "  kept as the best" if best else "")
        with self._spare("the best weights"):
            if best and save():
                self._best = value
        with self._spare("a line of evaluations"):  # after the weights: a kill in between has both made again
            append_line(self._folder.evaluations, {"step": step, "curve": self._name, **evaluation})
        last = [sign * v for v in self._values[-IN_A_ROW - 1 :]]
        turned = len(last) == IN_A_ROW + 1 and last == sorted(last) and len(set(last)) == len(last)
        self._alert(step, first.metric, turned)

    def _alert(self, step: int, metric: str, turned: bool) -> None:
        """Alerts of a curve that turns: once, and once more if it turns again."""
        text = (
            f"{metric} has become worse {IN_A_ROW} evaluations in a row: the run may be overfitting or diverging; the "
            f"best weights are kept in {shown(self._folder.best)}"
        )
        if turned and self._metrics is None:
            log.warning("%s", text)
        elif turned and self._metrics is not None:
            self._metrics.alert("distance", step, text)
        elif self._metrics is not None:
            self._metrics.over("distance")

    def _begin_again_if(self, first: Record) -> None:
        """Begins another curve if the numbers are of one, and keeps the best weights of the old under another name."""
        if first.curve() == self._curve:
            return
        if self._curve is not None:
            log.warning("train.eval measures something else than before: a new curve begins")
            checkpoint.set_aside(self._folder.best, -1, "was the best of the curve before")
            self._values, self._best = [], None
        self._curve, self._name = first.curve(), curve_id(first)


class _Point(NamedTuple):
    """The first number of an evaluation, and the name of its curve."""

    step: int
    record: Record
    name: str


def save_best(folder: RunFolder, step: int, tensors: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Keeps a checkpoint as the best, in place of the one before.

    Raises:
        CheckpointError: it cannot be written; the one before stays.
    """
    checkpoint.save(folder.best, step, tensors, meta)
    checkpoint.prune(folder.best, 1, 0)
    return True


def _points(folder: RunFolder) -> list[_Point]:
    if not folder.evaluations.exists():
        return []
    points = []
    for line in read_lines(folder.evaluations, _LINE).rows:
        for first in records(line, f"{folder.evaluations}, step {line['step']}")[:1]:
            points.append(_Point(line["step"], first, str(line.get("curve") or curve_id(first))))
    return points


def _text(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
