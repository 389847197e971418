"""The trackers of a run: which are opened, under which names they know it, and what their failures cost."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.extras import TRACKERS, how_to_install
from ddpm_ip.files import read_json, write_json
from ddpm_ip.places import set_aside
from ddpm_ip.plain import reason
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.log import Spare
from ddpm_ip.tracking.base import Alert, Begun, Tracker
from ddpm_ip.tracking.lane import Lane

log = logging.getLogger("ddpm_ip.train")

WHAT = {"tensorboard": "TensorBoard's file"}  # in a warning; of the others "the record of ..."
ANYTHING = (Exception, SystemExit)  # that a package makes of a full disk, or of a network that is gone
Make = Callable[[str], Tracker]


def chosen(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The trackers of ``train.trackers``: each once, and by default TensorBoard where it is installed."""
    if wanted is None:
        return ("tensorboard",) if is_installed("tensorboard") else ()
    return tuple(dict.fromkeys(wanted))


def refuse_missing(wanted: Sequence[str] | None) -> None:
    """Refuses, before training begins, trackers that are asked for and not installed.

    Raises:
        ConfigError: says how to install them.
    """
    if missing := [name for name in chosen(wanted) if not is_installed(name)]:
        extras = dict.fromkeys(TRACKERS[name] for name in missing)
        raise ConfigError(
            f"train.trackers: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: "
            f"{how_to_install(*extras)}; or leave out what is missing (--train.trackers [] for none)"
        )


def is_installed(name: str) -> bool:
    """Whether a package can be imported; nothing of it is."""
    return importlib.util.find_spec(name) is not None


def tracker(name: str) -> Tracker:
    """A tracker by its name. Its package is imported when it starts."""
    if name == "tensorboard":
        from ddpm_ip.tracking.tensorboard import TensorBoard

        return TensorBoard()
    if name == "wandb":
        from ddpm_ip.tracking.wandb import WandB

        return WandB()
    if name == "trackio":
        from ddpm_ip.tracking.trackio import Trackio

        return Trackio()
    from ddpm_ip.tracking.mlflow import MLflow

    return MLflow()


class Trackers:
    """All of a run, on the main process.

    Args:
        names: which are opened, see :func:`chosen`.
        begun: the run.
        spare: warns once for each tracker that fails. One that cannot start is told nothing more.
        make: makes a tracker by its name.
    """

    def __init__(self, names: Sequence[str], begun: Begun, spare: Spare, make: Make = tracker) -> None:
        self._spare, self._begun, self._lock = spare, begun, threading.Lock()
        self._known: dict[str, str] = {}
        with spare("trackers.json"):
            self._known = _known(begun.folder)
        self._trackers: dict[str, Tracker] = {}
        self._lanes: dict[str, Lane] = {}
        self._failed: set[str] = set()
        for name in names:
            self._trackers[name] = one = make(name)
            work = partial(self._try, one, partial(self._start, one), ends=True)
            if one.own_thread:
                self._lanes[name] = Lane(name, work)
            else:
                work()

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Points of curves, by their names."""
        self._each(lambda one: one.scalars(step, numbers))

    def image(self, step: int, name: str, path: Path) -> None:
        """A PNG."""
        self._each(lambda one: one.image(step, name, path))

    def alert(self, alert: Alert) -> None:
        """An alert, in each tracker's way."""
        self._each(lambda one: one.alert(alert))

    def close(self) -> None:
        """Ends all, also those that failed: they may have begun."""
        for name, one in self._trackers.items():
            work = partial(self._close, one)
            self._lanes[name].close(work) if name in self._lanes else work()

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, one in self._trackers.items():
            work = partial(self._try, one, partial(do, one), ends=one.one_failure_ends_it)
            self._lanes[name](work) if name in self._lanes else work()

    def _start(self, one: Tracker) -> None:
        found = one.start(self._begun, self._known.get(one.name))
        with self._lock:
            if found is not None and found != self._known.get(one.name):
                self._known[one.name] = found
                _keep(self._begun.folder, self._known)

    def _try(self, one: Tracker, work: Callable[[], None], ends: bool) -> None:
        if one.name in self._failed:
            return
        try:
            work()
        except ANYTHING as error:
            if ends:
                self._failed.add(one.name)
            self._tell(one, error)

    def _close(self, one: Tracker) -> None:
        try:
            one.close()
        except ANYTHING as error:
            if one.name not in self._failed:
                self._tell(one, error)

    def _tell(self, one: Tracker, error: Exception | SystemExit) -> None:
        said = error if isinstance(error, Exception) else RuntimeError(f"it ended with {error}")
        self._spare.tell(WHAT.get(one.name, f"the record of {one.name}"), said)


def _known(folder: RunFolder) -> dict[str, str]:
    """Under which names trackers know a run: as its folder says, unless that is a copy of a folder that is there, too.

    A copy that continued the curves of the run that it was copied from would spoil them.
    """
    path = folder.trackers
    if not path.is_file():
        return {}
    try:
        found = read_json(path, {"folder": str, "known": dict})
    except UserError as error:
        set_aside(path, reason(error))
        return {}
    original = Path(found["folder"])
    if original != folder.path.resolve() and RunFolder(original).trackers.is_file():
        log.info("%s is a copy of %s: trackers begin another run for it", folder.path, original)
        return {}
    return {str(name): str(known) for name, known in found["known"].items()}


def _keep(folder: RunFolder, known: Mapping[str, str]) -> None:
    write_json(folder.trackers, {"folder": str(folder.path.resolve()), "known": dict(known)})
