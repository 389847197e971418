"""How a run starts: from which checkpoint, whether everything fits together, and what it says about itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ddpm_ip.config import Config, load
from ddpm_ip.data import ImageSet
from ddpm_ip.data.labels import check_labels, without_images
from ddpm_ip.engine import in_turns, refuse_different
from ddpm_ip.errors import CheckpointError, ConfigError, DataError, UserError
from ddpm_ip.evaluate.during import check_sampling
from ddpm_ip.files import read_json, read_yaml, write_json, write_yaml
from ddpm_ip.perturbation import label
from ddpm_ip.places import set_aside
from ddpm_ip.plain import reason
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.identity import imported_in
from ddpm_ip.run.provenance import earlier, hardware, provenance
from ddpm_ip.schedule import LEAST_LEFT, too_little_noise
from ddpm_ip.settings import Change, Wanted, changes, continued, understood
from ddpm_ip.times import Table
from ddpm_ip.train.origin import Source
from ddpm_ip.train.run import Run
from ddpm_ip.train.state import TrainState
from ddpm_ip.train.step import learning_rate

log = logging.getLogger("ddpm_ip.train")

HEAVIEST = 1e15  # weight of a squared error; the squares of its gradients are summed in float32
COMMAND = "train.alert_command"
LISTED = 1000  # unusable images in the record of a run


@dataclass(frozen=True)
class Settled:
    """What a run starts with.

    Attributes:
        config: its settings.
        start: the checkpoint that it continues; None at step 0.
        changes: which settings are new.
        source: weights that it begins with, at step 0.
        alert_command: ``train.alert_command`` as an option gave it; the settings have none.
    """

    config: Config
    start: checkpoint.Checkpoint | None
    changes: list[Change] = field(default_factory=list)
    source: Source | None = None
    alert_command: str | None = None


def settle(wanted: Wanted, folder: RunFolder, resume: str | None) -> Settled:
    """Where a run starts, and its settings (see :func:`_found`), apart from the command for alerts.

    That command is run only if the person who starts this process gives it as an option. One that stands in a
    configuration or in the settings of a run may be a stranger's: it is named, not run. No file of the run keeps
    it, since it may hold a password, and others may continue the run.
    """
    settled = _found(wanted, folder, resume)
    command = settled.config.train.alert_command
    if command is None:
        return settled
    given = wanted.gives(COMMAND)
    if not given:
        log.warning(
            "the configuration names a command for alerts, which is not run, since it may be somebody else's. To have "
            "one run, give it as an option: --%s COMMAND",
            COMMAND,
        )
    config = replace(settled.config, train=replace(settled.config.train, alert_command=None))
    changes = [change for change in settled.changes if change.key != COMMAND]
    return replace(settled, config=config, changes=changes, alert_command=command if given else None)


def _found(wanted: Wanted, folder: RunFolder, resume: str | None) -> Settled:
    """Where a run starts, and its settings: those wanted for a new run, its own for one that is continued.

    A run that was killed before its first checkpoint has its settings in config.yaml alone.

    Args:
        wanted: what is asked for.
        folder: of the run.
        resume: see :func:`ddpm_ip.train.loop.train`.

    Raises:
        ConfigError: the folder holds another run; or as :func:`ddpm_ip.settings.continued`.
        CheckpointError: there is no whole checkpoint where one should be.
    """
    start = find_start(folder, resume)
    if wanted.init_from is not None:
        source = Source.find(wanted.init_from)
        return Settled(source.settings(wanted), None, source=source)
    if start is not None:
        saved = start.meta.get("config")
        if not isinstance(saved, Mapping):
            raise CheckpointError(f"{start.path}: meta.json holds no configuration, so it cannot be continued")
        config, changed = continued(wanted, saved, start.path)
        _refuse_other_powers(config, changed, start)
        if folder.config.is_file() and start.path.is_relative_to(folder.path):
            _mention_edits(folder.config, saved)
        return Settled(config, start, changed)
    says_nothing = wanted.file is None and wanted.config is None
    if folder.config.is_file() and (folder.is_used or says_nothing):
        return Settled(continued(wanted, read_yaml(folder.config), folder.config)[0], None)
    if says_nothing and resume is not None:
        raise ConfigError(
            f"{folder.path} holds no run to continue: look at -e, or give a configuration with -c to start one there"
        )
    return Settled(wanted.begun(), None)


def _refuse_other_powers(config: Config, changed: Sequence[Change], start: checkpoint.Checkpoint) -> None:
    """An average by a power function is over all steps: it can end on the way, but neither begin nor change.

    Raises:
        ConfigError: it would.
    """
    if start.step and config.train.ema_power is not None and any(c.key == "train.ema_power" for c in changed):
        raise ConfigError(
            f"train.ema_power cannot change at step {start.step}: these averages are of all steps since the first. "
            "Leave it out, or end them with --train.ema_power null --change train.ema_power, or begin a new run with "
            f"these weights: --init-from {start.path}"
        )


def find_start(folder: RunFolder, resume: str | None) -> checkpoint.Checkpoint | None:
    """The checkpoint that a run starts from, None at step 0; see ``resume`` of :func:`ddpm_ip.train.loop.train`.

    Raises:
        ConfigError: the folder holds another run.
        CheckpointError: there is no whole checkpoint where one should be.
    """
    if resume is None:
        folder.refuse_if_used()
        return None
    if resume == "latest":
        return checkpoint.newest(folder.checkpoints)
    if resume == "best":
        if best := checkpoint.newest(folder.best):
            return best
        raise CheckpointError(
            f"-r best: {folder.best} holds no checkpoint. The best is kept where train.eval measures: "
            "--train.eval.every N from the start, or continue with -r latest"
        )
    if not Path(resume).exists():
        there = checkpoint.steps(folder.checkpoints)
        said = f"{folder.checkpoints} has those of step {', '.join(map(str, there))}; " if there else ""
        raise CheckpointError(
            f"-r {resume}: there is no such checkpoint. {said}-r takes latest, best, or the path of a checkpoint or run"
        )
    own = (*folder.checkpoints.resolve().glob("step*"), *folder.best.resolve().glob("step*"))
    if Path(resume).resolve() not in (folder.path.resolve(), *own):
        folder.refuse_if_used()
    return checkpoint.find(Path(resume))


def open_data(config: Config, accelerator: Accelerator) -> ImageSet:
    """The training set; the first process of a node may download or decode it."""
    return in_turns(accelerator, lambda: config.data.open(progress=accelerator.is_main_process))


def refuse_different_starts(settled: Settled, folder: RunFolder, accelerator: Accelerator) -> None:
    """Refuses processes that would start from different states, which nothing would show later.

    Raises:
        ConfigError: they would, as on nodes that do not share the folder.
    """
    start = settled.start
    said, state = ("no checkpoint", None) if start is None else (f"step {start.step}", dict(start.hashes))
    refuse_different(accelerator, f"run in {folder.path}", said, [state, settled.config.to_dict()])


def set_backends(config: Config) -> None:
    """Bit-exact kernels, or the fastest ones."""
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.train.deterministic


@contextmanager
def backends_as_before() -> Iterator[None]:
    """Restores PyTorch's kernels on leaving, which training chooses for the whole process (:func:`set_backends`)."""
    benchmark, exact = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(exact)


def check(config: Config, images: ImageSet, processes: int) -> None:
    """Checks what no single section can see.

    Raises:
        DataError, ConfigError: data, model and processes do not fit together.
    """
    if images.channels != config.model.in_channels:
        mode = {1: "gray", 3: "rgb", 4: "rgba"}.get(config.model.in_channels)
        cure = f"set --data.mode {mode} to convert, or " if mode and hasattr(config.data, "mode") else ""
        raise DataError(
            f"the images of {images.name} have {images.channels} channels, model.in_channels is "
            f"{config.model.in_channels}: {cure}set --model.in_channels {images.channels}"
        )
    config.model.check(images.height, images.width)
    if config.classes is not None:
        check_labels(images.labels, images.name, config.classes.count)
    check_losses(config)
    check_sampling(config)
    if config.train.batch_size % processes:
        raise ConfigError(
            f"train.batch_size {config.train.batch_size} is not divisible by the {processes} processes, and each takes "
            "an equal share"
        )


def check_losses(config: Config) -> None:
    """Refuses losses that are not finite in float32 at the noisiest time, since next to nothing of an image is left.

    Raises:
        ConfigError: the bound of ``pred_eps`` divides by nearly 0, or the weight of a time is beyond measure.
    """
    d, t = config.diffusion, config.train
    schedule, last = d.schedule, d.total_steps - 1
    cure = "choose diffusion.objective pred_v, a smaller diffusion.beta_end, or fewer diffusion.total_steps"
    left = f"alpha_bar is {schedule.alpha_bar(last):.2g} at the noisiest time"
    heaviest = float(t.weighting(schedule, torch.tensor([0, last]), d.objective).max())
    if not heaviest <= HEAVIEST:
        raise ConfigError(
            f"train.weighting {t.weighting.name} weighs an error of {d.objective} by {heaviest:.2g}, which training "
            f"does not survive ({left}): {cure}"
        )
    if d.objective == "pred_eps" and (t.loss == "vlb" or d.learned_variance) and schedule.alpha_bar(last) < LEAST_LEFT:
        which = "train.loss vlb" if t.loss == "vlb" else "the bound that diffusion.var_type learned_range trains"
        raise ConfigError(f"{which} divides by the root of alpha_bar with pred_eps, and {left}: {cure}")


def _mention_edits(file: Path, saved: Mapping[str, Any]) -> None:
    """Says where config.yaml differs from what the checkpoint was made with: it was edited, or its steps are lost."""
    try:
        edited = changes(understood(saved, file).to_dict(), load(file).to_dict())
    except UserError as error:
        log.warning("%s. The settings of the checkpoint are used", error)
        return
    if edited:
        log.warning(
            "%s is not what the checkpoint was made with (%s): the settings of the checkpoint are used",
            file, "; ".join(map(str, edited[:5])) + (" and more" if len(edited) > 5 else ""),
        )  # fmt: skip


def check_same_data(wanted: Wanted, images: ImageSet, start: checkpoint.Checkpoint) -> list[Change]:
    """Refuses to continue with other images, unless that is intended.

    Raises:
        CheckpointError: they are others, and ``--change`` names no key of the data.
    """
    before = start.meta.get("data_fingerprint")
    if before == images.fingerprint:
        return []
    if before is None and imported_in(start.meta) is not None:
        log.info("%s was imported, and does not say on which images it was trained", start.path)
        return []
    if not any(key == "data" or key.startswith("data.") for key in wanted.change):
        raise CheckpointError(
            f"cannot continue {start.path}: the images of {images.name} are not those that it was trained with "
            f"(SHA-256 {before} -> {images.fingerprint}). Set data.root to the same images, or start a new run in "
            "another folder (-e). To continue with other images on purpose, which the run's history will tell, add "
            "--change data"
        )
    return [Change("data", before, images.fingerprint)]


def note_changes(run: Run, settled: Settled, captured: bool) -> None:
    """Says what is new since the checkpoint, and keeps it: in the log, and in each checkpoint from now on.

    The history is part of a checkpoint, so that weights say by themselves under which settings they were trained: a
    flat list, the newest last, ``{"step": 500, "changes": ["seed: 0 -> 1"]}``. How a process computes is part of it as
    far as it changes the bits of the weights.

    Args:
        run: with its state at the start.
        settled: with what it starts.
        captured: whether a step is one recorded CUDA graph.
    """
    engine, start, meta = run.engine, settled.start, run.state.meta
    meta["computed"] = {
        "precision": engine.mixed_precision,
        "processes": engine.num_processes,
        "device": engine.device.type,
        "step": "captured" if captured else "plain",
    }
    meta.setdefault("history", [])
    if start is None:
        return
    before = start.meta.get("computed", {})
    new = [*settled.changes, *(Change(k, before[k], v) for k, v in meta["computed"].items() if before.get(k, v) != v)]
    for change in new:
        log.info("continuing with a changed setting, %s", change)
        if change.key == "train.n_steps" and run.config.train.lr_schedule.falls_to_end:
            log.warning(
                "the learning rate falls until train.n_steps, which has changed: it continues at %.3g, and the run is "
                "not the one that would have had this many steps from the start",
                learning_rate(run.config, start.step),
            )  # fmt: skip
    entry = {"step": start.step, "changes": [str(change) for change in new]}
    meta["history"] = [*start.meta.get("history", []), *([entry] if new else [])]


def announce(run: Run) -> None:
    """Says what the run is made of. A folder without a config.yaml gets it now, others by :func:`take_over`."""
    config, folder, images, state = run.config, run.folder, run.images, run.state
    log.info("results go to %s", folder.path)
    log.info(
        "%s: %d images of %dx%dx%d; network with %s parameters; %s; %s",
        images.name, len(images), *images.shape, f"{_parameters(state):,}",
        label(config.perturbation), where_computed(run.engine),
    )  # fmt: skip
    if said := too_little_noise(config.diffusion.schedule):
        log.warning("%s", said)
    if config.train.loss == "vlb" and label(config.perturbation) != "DDPM":
        log.warning(
            "train.loss vlb asks for the noise eps + gamma xi of a perturbed input, not for the clean eps: this is not "
            "DDPM-IP, which is of train.loss simple"
        )
    if isinstance(state.times, Table) and (said := state.times.leaps()):
        log.warning("%s", said)
    if (
        config.classes is not None
        and images.labels is not None
        and (said := without_images(images.labels, config.classes.count))
    ):
        log.warning("%s", said)
    if not folder.config.exists():
        write_yaml(folder.config, config.to_dict())


def take_over(run: Run) -> None:
    """Makes the folder say what is true from the first step of this process on, and not before.

    A start that takes no step (the run is complete, the GPU is too small) leaves what the folder says as it is.
    Checkpoints of later steps, which an earlier process made, are set aside.
    """
    for folder in (run.folder.checkpoints, run.folder.snapshots):
        checkpoint.set_aside(folder, run.state.step - 1)
    try:
        write_yaml(run.folder.config, run.config.to_dict())
        write_json(run.folder.provenance, _record(run))
    except UserError as error:  # a full disk: each checkpoint says the same
        log.warning("%s. Training continues", error)


def where_computed(engine: Accelerator) -> str:
    """``1 process on 1 x NVIDIA H100 80GB HBM3, precision bf16``."""
    n = engine.num_processes
    precision = "float32" if engine.mixed_precision == "no" else engine.mixed_precision
    return f"{n} process{'es' * (n != 1)} on {hardware()}, precision {precision}"


def _record(run: Run) -> dict[str, Any]:
    images, folder = run.images, run.folder
    data = {"name": images.name, "fingerprint": images.fingerprint, "count": len(images)}
    data |= {"channels": images.channels, "height": images.height, "width": images.width}
    if images.bad:
        data["left_out"] = {"count": len(images.bad), "files": [str(bad) for bad in images.bad[:LISTED]]}
    record = {**provenance(), "parameters": _parameters(run.state), "data": data, "from_step": run.start}
    named = ("imported", "init_from", "computed", "history")
    record |= {key: run.state.meta[key] for key in named if key in run.state.meta}
    if (run.start or "imported" in record) and folder.provenance.exists():
        try:
            record["earlier"] = earlier(read_json(folder.provenance))
        except UserError as error:
            set_aside(folder.provenance, reason(error))
    return record


def _parameters(state: TrainState) -> int:
    return sum(p.numel() for p in state.network.parameters())
