"""Trackio: a local database, a server or a Space, as TRACKIO_DIR, TRACKIO_SERVER_URL and TRACKIO_SPACE_ID say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from accelerate.tracking import TrackioTracker

from ddpm_ip.tracking.base import Alert, Begun, Tracker, flat, new_name, project


class Trackio(Tracker):
    """Curves, grids, alerts (which trackio sends to a webhook, if it has one), and the settings.

    A run of trackio's is found by its name alone, so that has a random end: a folder of the same name elsewhere is
    another run.
    """

    name: ClassVar[str] = "trackio"

    def start(self, begun: Begun, known: str | None) -> str:
        name = known or f"{begun.name}-{new_name()[:8]}"
        self._tracker = TrackioTracker(
            project("TRACKIO_PROJECT"), name=name, resume="allow", config=flat(begun.config), embed=False
        )
        self._tracker.start()
        import trackio

        text = f"```yaml\n{begun.text}```"
        self._tracker.log({"config": trackio.Markdown(text)}, step=begun.step)
        return name

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._tracker.log(dict(numbers), step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        import trackio

        self._tracker.log({name: trackio.Image(str(path))}, step=step)

    def alert(self, alert: Alert) -> None:
        self._tracker.tracker.alert(title=alert.kind, text=alert.text, step=alert.step)

    def close(self) -> None:
        self._tracker.finish()
