"""The folder of a run (EXP_DIR): what is in it, who may write to it, and where it continues.

config.yaml       the resolved configuration         log.txt        what was printed
metrics.jsonl     one line of numbers per log line   tensorboard/   the same for TensorBoard
ckpt/             checkpoints                        samples/       grids of samples
evaluations.jsonl what train.eval measured           best/          checkpoint of the best of them
provenance.json   versions, hardware, command, data  lock           held while a process trains here
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import create_json, read_json


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def text_log(self) -> Path:
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "ckpt"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def is_used(self) -> bool:
        """Whether it holds a run."""
        return self.metrics.exists() or self.checkpoints.exists()

    def refuse_if_used(self) -> None:
        """A new run never writes into the folder of another.

        Raises:
            ConfigError: the folder holds a run; says how to continue it.
        """
        if self.is_used:
            raise ConfigError(
                f"{self.path} holds a run already, and nothing of it was touched. "
                "Continue it with -r latest, or choose another folder with -e"
            )


def config_near(weights: Path) -> Path | None:
    """The ``config.yaml`` of the run that weights belong to, which is next to ``ckpt/stepNNNNNNNN/ema.safetensors``.

    Args:
        weights: the folder of a run, a checkpoint, or a file of weights.
    """
    homes = [weights, *weights.absolute().parents[:3]]
    return next((home / "config.yaml" for home in homes if (home / "config.yaml").is_file()), None)


def default_path() -> Path:
    """``runs/exp-{current time}``."""
    return Path("runs") / f"exp-{datetime.now():%Y-%m-%d-%H-%M-%S}"


class Lock:
    """At most one process trains in a folder. A lock left by a process that died is taken over.

    Raises:
        ConfigError: on entering, when another process holds the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mine = {"pid": os.getpid(), "host": socket.gethostname()}

    def __enter__(self) -> Lock:
        for _ in range(2):
            try:
                create_json(self.path, self._mine)
            except FileExistsError:
                self._remove_if_stale()
                continue
            return self
        raise ConfigError(f"another process has just taken {self.path}")

    def __exit__(self, *exc: object) -> None:
        self.path.unlink(missing_ok=True)

    def _remove_if_stale(self) -> None:
        try:
            held = read_json(self.path, {"pid": int, "host": str}, links=False)
        except UserError:
            if not os.path.lexists(self.path):  # given back meanwhile
                return
            held = {"pid": 0, "host": "unknown"}
        pid, host = held["pid"], held["host"]
        if host != self._mine["host"] or _alive(pid):
            raise ConfigError(
                f"process {pid} on {host} is training in {self.path.parent}. Wait for it, or choose another folder "
                f"(-e); if that process is gone for certain, remove {self.path}"
            )
        self.path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
