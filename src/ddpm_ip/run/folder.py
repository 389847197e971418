"""The folder of a run (EXP_DIR): what is in it, who may write to it, and where it continues.

config.yaml       the resolved configuration         log.txt        what was printed
metrics.jsonl     one line of numbers per log line   tensorboard/   the same for TensorBoard
ckpt/             checkpoints                        samples/       grids of samples
evaluations.jsonl what train.eval measured           best/          checkpoint of the best of them
provenance.json   versions, hardware, command, data  lock           held while a process trains here
snapshots/        averages of which others are made (:mod:`ddpm_ip.run.snapshots`)
measured/         what was measured for its weights (:mod:`ddpm_ip.run.measured`)
trackers.json     under which names wandb, trackio and mlflow know it (:mod:`ddpm_ip.tracking`)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ddpm_ip.errors import ConfigError
from ddpm_ip.files import sweep


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
    def trackers(self) -> Path:
        return self.path / "trackers.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "ckpt"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

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
    def is_one(self) -> bool:
        """Whether a folder is that of a run, or of one that has only begun."""
        return self.config.is_file() or self.checkpoints.is_dir()

    @property
    def is_used(self) -> bool:
        """Whether it holds a run."""
        return self.metrics.exists() or self.checkpoints.exists()

    def sweep(self) -> None:
        """Removes what a training process that was killed while writing has left; only for the holder of the lock."""
        sweep(self.path, *(path.name for path in (self.config, self.provenance, self.metrics, self.evaluations)))
        sweep(self.samples, "step*.png")

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
    return next((home / "config.yaml" for home in homes(weights) if (home / "config.yaml").is_file()), None)


def homes(path: Path) -> list[Path]:
    """The folders whose run a path may belong to, the nearest first: itself, the next, and what has it in ckpt/, ...

    No folder further up: whatever run happens to lie there has nothing to do with it.
    """
    near = [path, *path.absolute().parents[:2]]
    kept = [folder.parent for folder in near if folder.name in ("ckpt", "best", "snapshots")]
    return [*near[:2], *kept]


def default_path() -> Path:
    """``runs/exp-{current time}``."""
    return Path("runs") / f"exp-{datetime.now():%Y-%m-%d-%H-%M-%S}"
