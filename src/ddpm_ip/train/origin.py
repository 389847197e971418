"""A run that begins with the weights of another: fine-tuning, as with input perturbation.

Network and averages begin with the given weights, the optimizer with nothing, at step 0. By default these are averaged
weights: they are what is sampled and judged, and better than the network itself, which the learning rate keeps moving
around them. (To take the network itself, or another average, give its file:
``ckpt/stepNNNNNNNN/model.safetensors``.)

They are saved as the checkpoint of step 0 before anything else, so that the run needs its source no more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import CheckpointError, ConfigError, UserError
from ddpm_ip.interop.find import find_weights
from ddpm_ip.run import checkpoint
from ddpm_ip.run.identity import Identity
from ddpm_ip.run.weights import Weights, load_weights
from ddpm_ip.settings import MAKES_IMAGES, Change, Wanted, as_trained, changes, understood
from ddpm_ip.train.run import Run
from ddpm_ip.train.state import TrainState

log = logging.getLogger("ddpm_ip.train")


@dataclass(frozen=True)
class Source:
    """Weights that a run begins with.

    Attributes:
        path: as given.
        weights: what is there.
        trained: with which settings they were trained, if that is known.
    """

    path: Path
    weights: Weights
    trained: Identity | None

    @classmethod
    def find(cls, path: Path) -> Source:
        """What is at a path.

        Raises:
            CheckpointError: there are no weights, or they are damaged.
        """
        weights = find_weights(path)
        try:
            return cls(path, weights, weights.trained(path))
        except ConfigError:
            return cls(path, weights, None)

    def settings(self, wanted: Wanted) -> Config:
        """The settings of the run: as wanted, or where no configuration is given, those of the source and options.

        Raises:
            ConfigError: there are none, or they cannot be used.
        """
        if wanted.file is not None or wanted.config is not None:
            return wanted.begun()
        if self.trained is None:
            raise ConfigError(f"--init-from {self.path}: nothing says how these weights were trained; give -c CONFIG")
        return from_dict(self.trained.config, f"the configuration in {self.trained.origin}", wanted.options)

    def give(self, state: TrainState, config: Config) -> None:
        """Has a fresh state begin with the weights, and say so.

        Raises:
            CheckpointError: they are of another network.
        """
        other = self._otherwise(config)
        try:
            for network in (state.network, *(average.network for average in state.averages)):
                load_weights(network, self.weights.tensors, self.weights.origin)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}" + (f"\nIts settings are others:\n{as_trained(other)}" if other else "")
            ) from None
        if other:
            log.warning(
                "the weights of %s mean something else to this run:\n%s", self.weights.origin, as_trained(other)
            )
        facts = self.facts()
        state.meta["init_from"] = facts
        if self.trained is not None and self.trained.imported is not None:  # with its licence
            state.meta["imported"] = dict(self.trained.imported)
        step = f" at step {facts['step']}" if "step" in facts else ""
        told = f"weights: initial -> those of {facts['path']}{step} (SHA-256 {facts['sha256'][:12]})"
        state.meta["history"] = [{"step": 0, "changes": [told]}]
        log.info("a new run, %s", told)

    def facts(self) -> dict[str, Any]:
        """What the run says of where its weights are from."""
        step = None if self.trained is None else self.trained.step
        known = {"path": self.weights.origin, "step": step, "sha256": self.weights.sha256}
        return {k: v for k, v in {**known, "averaged": self.weights.averaged}.items() if v is not None}

    def _otherwise(self, config: Config) -> list[Change]:
        """What about the network and its meaning differs from what the weights were trained with."""
        if self.trained is None:
            return []
        try:
            before = understood(self.trained.config, self.trained.origin).to_dict()
        except UserError:
            return []
        return [
            c for c in changes(before, config.to_dict()) if c.key.split(".")[0] in MAKES_IMAGES and c.kind == "method"
        ]


def keep(run: Run) -> None:
    """Saves the state of step 0, before anything in the folder says that there is a run.

    Raises:
        CheckpointError: there is no room.
    """
    if run.is_main:
        checkpoint.save(run.folder.checkpoints, 0, run.state.tensors(), run.state.to_meta())
