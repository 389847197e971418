"""MLflow: a file store, a database or a server, as MLFLOW_TRACKING_URI says; see also MLFLOW_EXPERIMENT_NAME."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from accelerate.tracking import MLflowTracker

from ddpm_ip.tracking.base import PROJECT, Alert, Begun, Tracker, flat


class MLflow(Tracker):
    """Curves, grids and settings as artifacts, settings as parameters, alerts as tags.

    A parameter of MLflow's is written once; with what settings a run was continued is in its artifacts.
    """

    name: ClassVar[str] = "mlflow"

    def start(self, begun: Begun, known: str | None) -> str:
        self._tracker = MLflowTracker(PROJECT, run_id=known, run_name=begun.name)
        self._tracker.start()
        import mlflow

        name = str(self._tracker.tracker.info.run_id)
        if known is None:
            self._tracker.store_init_configuration(flat(begun.config))
        mlflow.log_text(begun.text, f"config/step{begun.step:08d}.yaml")
        return name

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._tracker.log({_allowed(name): value for name, value in numbers.items()}, step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        self._tracker.log_artifact(str(path), name)

    def alert(self, alert: Alert) -> None:
        import mlflow

        mlflow.set_tag(f"alert.{alert.kind}", f"step {alert.step}: {alert.text}")

    def close(self) -> None:
        self._tracker.finish()


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
