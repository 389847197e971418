"""What is missing from a run of a sweep: training, table, exposure; and what was measured already.

For each run, ``SWEEP_DIR/done.json`` says with which options and at which step its table and its exposure were
measured, and what the table was then: a table that has since been made with other options is made again, which costs
little, since its cells are there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddpm_ip.errors import UserError
from ddpm_ip.exposure.curves import FOLDER
from ddpm_ip.files import LARGEST_JSON, read_bytes, read_json, write_json, write_yaml
from ddpm_ip.places import make_folder
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.identity import identity
from ddpm_ip.settings import understood
from ddpm_ip.sweep.jobs import Job, Stage
from ddpm_ip.sweep.plan import Asked, SweepRun, refuse_changed

TRAINING, TABLE, EXPOSURE = "training", "table", "exposure"


@dataclass
class Stages:
    """The commands of every run.

    Args:
        asked: what the sweep is.
        folder: of the sweep.
    """

    asked: Asked
    folder: Path
    _done: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._done = _read(self.folder / "done.json")

    def job(self, run: SweepRun) -> Job:
        """A run as a job."""
        return Job(
            run.name,
            self.folder / "logs" / f"{run.name}.log",
            lambda: self.missing(run),
            lambda stage: self._note(run, stage),
        )

    def missing(self, run: SweepRun) -> list[Stage]:
        """The commands that are still to be run; where training is to begin, the folder gets its configuration.

        Raises:
            UserError: the folder holds another run.
        """
        path = self.folder / run.name
        step = self.check(run)
        if step is None:
            make_folder(path)
            write_yaml(RunFolder(path).config, run.config.to_dict())
        stages = [] if self.is_trained(run) else [Stage(TRAINING, ["train", "-e", str(path), "-r", "latest"])]
        for stage in self.measuring(run):
            now = self._state(run, stage.doing)
            if stages or not now["found"] or self._done.get(run.name, {}).get(stage.doing) != now:
                stages.append(stage)
        return stages

    def measuring(self, run: SweepRun) -> list[Stage]:
        """The commands that measure a run, made or not."""
        path = str(self.folder / run.name)
        before = {TABLE: ["table", "-e", path], EXPOSURE: ["exposure", "--weights", path]}
        return [Stage(doing, [*before[doing], *options]) for doing, options in self._measured.items()]

    def check(self, run: SweepRun) -> int | None:
        """The step of the newest checkpoint of a run; None if it has none.

        Raises:
            UserError: its folder holds another run.
        """
        path = self.folder / run.name
        if not RunFolder(path).is_one:
            return None
        own = identity(path)
        refuse_changed(understood(own.config, own.origin).to_dict(), run.config.to_dict(), path)
        return own.step

    def is_trained(self, run: SweepRun) -> bool:
        """Whether a run has a checkpoint of its last step."""
        step = self.check(run)
        return step is not None and step >= run.config.train.n_steps

    @property
    def _measured(self) -> dict[str, list[str]]:
        """What is measured of each run, with the options."""
        wanted = {TABLE: self.asked.table, EXPOSURE: self.asked.exposure}
        return {doing: list(options) for doing, options in wanted.items() if options is not None}

    def _note(self, run: SweepRun, stage: Stage) -> None:
        if stage.doing != TRAINING:
            self._done.setdefault(run.name, {})[stage.doing] = self._state(run, stage.doing)
            write_json(self.folder / "done.json", {"runs": self._done})

    def _state(self, run: SweepRun, doing: str) -> dict[str, Any]:
        """What a measurement was made with, and what there is of it: a hash of the table, or the files of curves."""
        path = self.folder / run.name
        table, curves = path / "table" / "table.json", sorted(file.name for file in (path / FOLDER).glob("*.json"))
        hashed = hashlib.sha256(read_bytes(table, LARGEST_JSON)).hexdigest() if table.is_file() else None
        found = hashed if doing == TABLE else curves
        return {"options": self._measured[doing], "step": self.check(run), "found": found}


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """What was measured; a damaged file is as none, since what is there is found again."""
    try:
        runs = read_json(file, {"runs": dict})["runs"]
    except UserError:
        return {}
    return {str(name): dict(found) for name, found in runs.items() if isinstance(found, dict)}
