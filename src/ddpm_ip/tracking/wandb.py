"""Weights & Biases. Its environment says where and how: WANDB_MODE=offline, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from accelerate.tracking import WandBTracker

from ddpm_ip.tracking.base import Alert, Begun, Tracker, new_name, project

AXIS = "step"  # a number like others: wandb's own steps only ever grow, and evaluations come late


class WandB(Tracker):
    """Curves against the training step, grids, alerts (which wandb mails or sends on), and the settings."""

    name: ClassVar[str] = "wandb"

    def start(self, begun: Begun, known: str | None) -> str:
        name = known or new_name()
        self._tracker = WandBTracker(project("WANDB_PROJECT"), id=name, name=begun.name, resume="allow")
        self._tracker.start()
        self._tracker.tracker.define_metric("*", step_metric=AXIS)
        self._tracker.store_init_configuration(dict(begun.config))
        import wandb

        self._tracker.log({"config": wandb.Html(f"<pre>{html.escape(begun.text)}</pre>"), AXIS: begun.step})
        return name

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._tracker.log({**numbers, AXIS: step})

    def image(self, step: int, name: str, path: Path) -> None:
        import wandb

        self._tracker.log({name: wandb.Image(str(path)), AXIS: step})

    def alert(self, alert: Alert) -> None:
        self._tracker.tracker.alert(title=alert.kind, text=f"step {alert.step}: {alert.text}", level="WARN")

    def close(self) -> None:
        self._tracker.finish()
