"""Stand-ins for trackers, which need no package, and for their packages, which note what is asked of them."""

import sys
from types import ModuleType

from ddpm_ip.run.folder import RunFolder
from ddpm_ip.tracking.base import Begun, Tracker

CONFIG = {"seed": 1, "train": {"n_steps": 4, "ema_power": None}}


def begun(folder, step=0):
    folder.mkdir(parents=True, exist_ok=True)
    return Begun(RunFolder(folder), step, CONFIG, "seed: 1\n")


class StandIn(Tracker):
    """Notes what it is told; ``fails`` says which methods raise what; all but start wait for ``waits``, an event."""

    own_thread = False

    def __init__(self, name, fails=(), waits=None):
        self.name, self.told, self._fails, self._waits = name, [], fails, waits
        self.own_thread = waits is not None

    def start(self, begun, known):
        self._note("start", begun.step, known)
        return known or f"{self.name}'s"

    def scalars(self, step, numbers):
        self._note("scalars", step, dict(numbers))

    def image(self, step, name, path):
        self._note("image", step, name)

    def alert(self, alert):
        self._note("alert", alert.step, alert.kind)

    def close(self):
        self._note("close")

    def _note(self, what, *rest):
        if self._waits is not None and what != "start":
            self._waits.wait(60)
        self.told.append((what, *rest))
        if what in self._fails:
            raise self._fails[what]


class Recorder:
    """Whatever is called on it is noted under its dotted name, and gives another recorder."""

    def __init__(self, calls, name, **values):
        self.__dict__ |= {"_calls": calls, "_name": name, **values}

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(self._calls, f"{self._name}.{name}")

    def __call__(self, *args, **settings):
        self._calls.append((self._name, args, settings))
        return Recorder(self._calls, f"{self._name}()")


def package(monkeypatch, name, **values):
    """Puts a stand-in in the place of a package; gives the list of what is called."""
    calls = []
    module = ModuleType(name)
    recorder = Recorder(calls, name, **values)
    module.__getattr__ = lambda key: values[key] if key in values else getattr(recorder, key)
    monkeypatch.setitem(sys.modules, name, module)
    return calls
