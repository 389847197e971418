"""A training run, from the configuration to the last checkpoint. Reads top to bottom."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.ema import EMA
from ddpm_ip.engine import start_device, start_engine
from ddpm_ip.errors import CheckpointError, ConfigError, Diverged
from ddpm_ip.images import by_class, grid, save_png
from ddpm_ip.memory import enough_memory
from ddpm_ip.nn.blocks import recompute_blocks
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder, default_path
from ddpm_ip.run.lock import Lock
from ddpm_ip.run.log import Rate, clock, setup
from ddpm_ip.sample.generator import Model, preview, refuse_too_many
from ddpm_ip.settings import Wanted
from ddpm_ip.tracking.metrics import Metrics
from ddpm_ip.tracking.trackers import refuse_missing
from ddpm_ip.train import origin
from ddpm_ip.train.callback import NOTHING, tell
from ddpm_ip.train.diverged import check_finite, saying_what_is_left
from ddpm_ip.train.feed import Feed
from ddpm_ip.train.followed import Pace, check_average, check_disk, follow
from ddpm_ip.train.monitor import Judged, Watch
from ddpm_ip.train.outlook import Outlook
from ddpm_ip.train.owed import Owed, is_due, owed
from ddpm_ip.train.path import Step, make_step
from ddpm_ip.train.run import NO_HOOKS, Hooks, Run
from ddpm_ip.train.signals import StopRequest
from ddpm_ip.train.start import (
    Settled,
    announce,
    check,
    check_same_data,
    note_changes,
    open_data,
    refuse_different_starts,
    set_backends,
    settle,
    take_over,
)
from ddpm_ip.train.state import Sums, TrainState, further_averages
from ddpm_ip.train.step import TrainStep, at_once, learning_rate, own_rows

if TYPE_CHECKING:
    from ddpm_ip.evaluate.during import Judge

log = logging.getLogger("ddpm_ip.train")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its folder, the steps done, and the signal, or a callback's error, that stopped it early."""

    folder: Path
    step: int
    signal: int | None = None
    error: Exception | None = None


def train(
    wanted: Config | Wanted,
    exp_dir: Path | None = None,
    resume: str | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Outcome:
    """Trains a model.

    Args:
        wanted: everything that the run is made of; or what is to change in a run that is continued.
        exp_dir: where results go; ``runs/exp-{current time}`` if None.
        resume: "latest" continues the newest whole checkpoint of ``exp_dir``, "best" the best of ``train.eval``; or a
            checkpoint, or the folder of a run.
        hooks: for tests, and a callback after each log line (:mod:`ddpm_ip.train.callback`).

    Returns:
        How it ended. After SIGTERM or SIGINT, and where a callback stops it or fails, the state is saved first.

    Raises:
        UserError: anything that the user can put right; what was saved before is untouched.
    """
    wanted = wanted if isinstance(wanted, Wanted) else Wanted(config=wanted)
    if resume in ("latest", "best") and exp_dir is None:
        raise ConfigError(f"-r {resume} continues the run in a folder: give that folder with -e")
    if wanted.change and resume is None:
        raise ConfigError("--change is for a run that is continued: say which with -r latest and -e EXP_DIR")
    if wanted.init_from is not None and resume is not None:
        raise ConfigError(
            "--init-from begins a new run, and -r continues one, which has its weights: give one of them. A run that "
            "was begun with --init-from continues with -r latest alone"
        )
    wanted.check_change()
    start_device()  # joins the processes; the precision is that of the run, which is still to be found
    is_main = PartialState().is_main_process
    setup(None, is_main)
    folder = RunFolder(_agree(exp_dir or default_path()))
    with Lock(folder.lock) if is_main else nullcontext():
        settled = settle(wanted, folder, resume)
        config = settled.config
        engine = start_engine(config.train.mixed_precision, fast=config.train.fast == "auto")
        setup(folder, is_main)
        refuse_different_starts(settled, folder, engine)
        if settled.start is None and resume is not None:
            log.info("-r %s: there is no checkpoint in %s yet, starting at step 0", resume, folder.checkpoints)
        with enough_memory(lambda: _too_large(config, engine)):
            return _train(_begin(wanted, settled, folder, engine, hooks), settled)


def _begin(wanted: Wanted, settled: Settled, folder: RunFolder, engine: Accelerator, hooks: Hooks) -> Run:
    """The run with its state: fresh, or taken over from a checkpoint."""
    config, start = settled.config, settled.start
    refuse_missing(config.train.trackers)
    images = open_data(config, engine)
    set_backends(config)
    check(config, images, engine.num_processes)
    refuse_too_many(config, engine, at_once(config, engine))
    state = fresh_state(config, engine)
    state.meta = {"config": config.to_dict(), "data_fingerprint": images.fingerprint}
    if start is not None:
        settled.changes.extend(check_same_data(wanted, images, start))
        state.meta |= {key: start.meta[key] for key in ("imported", "init_from") if key in start.meta}
        state.restore(start)
        log.info("continuing from %s at step %d", start.path, state.step)
    if settled.source is not None:
        settled.source.give(state, config)
    return Run(config, folder, images, state, Model(config, state.ema.network, engine), state.step, hooks)


def _train(run: Run, settled: Settled) -> Outcome:
    if run.is_main:
        run.folder.sweep()
        for folder in (run.folder.checkpoints, run.folder.best, run.folder.snapshots):
            checkpoint.sweep(folder)
    lacks = owed(run, settled)
    if run.is_done and not lacks:  # so what the folder says of the run stays as it is
        log.info("the run is already at step %d of %d: nothing to do", run.state.step, run.config.train.n_steps)
        return Outcome(run.folder.path, run.state.step)
    judge = _judge(run)
    if settled.source is not None:
        origin.keep(run)
    if run.is_main:
        announce(run)
    outlook = Outlook(run)
    feed = make_feed(run.config, run.images, run.engine)
    metrics = None
    try:
        step = make_step(run.config, run.engine, feed, run.state)
        note_changes(run, settled, captured=not isinstance(step, TrainStep))
        if run.is_main:
            metrics = follow(run, settled.alert_command)
            check_average(run, metrics)
        return _steps(run, step, judge, metrics, lacks, outlook)
    except Diverged as error:
        if metrics is not None:
            metrics.alert("not_finite", run.state.step, str(error))
        raise
    finally:
        feed.close()
        if metrics is not None:
            metrics.close()


def _steps(
    run: Run, step: Step, judge: Judge | None, metrics: Metrics | None, lacks: Owed, outlook: Outlook
) -> Outcome:
    t, folder, state = run.config.train, run.folder, run.state
    watch = Watch(folder, state.step, metrics) if judge is not None and run.is_main else None
    saved, pace, asked = state.step, Pace.of(run), NOTHING
    rate = Rate(t.n_steps, t.batch_size, state.step)
    bar = tqdm(total=t.n_steps, initial=state.step, unit="step", disable=None if run.is_main else True)
    left = saying_what_is_left(folder.checkpoints, run.start) if run.is_main else nullcontext()
    with left, bar, StopRequest(run.engine) as stop, watch or nullcontext():
        _make_up(run, judge, watch, metrics, lacks)
        while not run.is_done:
            state.sums.add(*step())
            bar.update()
            if run.is_main and state.step == run.start + 1:
                take_over(run)
            outlook.look(state.step)
            run.hooks.on_step(state.step)
            if watch is not None:
                watch.poll()
            done, stopping = state.step, stop.agreed(state.step)
            if done % t.print_freq == 0 or run.is_done:
                asked = tell(run, _report(run, rate, pace, metrics, bar))
            last = run.is_done or stopping is not None or asked.stop
            if t.ema_power is not None and is_due(done, t.ema_snapshot_freq, run.config):
                _snapshot(run)  # before the checkpoint: after a kill in between it is made again
            if done % t.save_freq == 0 or last:
                _save(run, watch, metrics, must_succeed=last)
                saved = done
            if is_due(done, t.sample_freq, run.config):
                _sample(run, metrics)
            if judge is not None and is_due(done, t.eval.every, run.config):
                _evaluate(run, judge, watch, state)
            if stopping is not None:
                log.info("stopped by signal %d at step %d; continue with -r latest -e %s", stopping, done, folder.path)
                return Outcome(folder.path, done, stopping, asked.error)
            if asked.stop and not run.is_done:
                log.info("stopped by the callback at step %d; continue with -r latest -e %s", done, folder.path)
                return Outcome(folder.path, done, error=asked.error)
    if run.is_main:
        _prune(run, watch)
    log.info("finished: %d steps, checkpoint of step %d in %s", state.step, saved, folder.checkpoints)
    return Outcome(folder.path, state.step, error=asked.error)


def _report(run: Run, rate: Rate, pace: Pace | None, metrics: Metrics | None, bar: tqdm) -> dict[str, float] | None:
    """One log line: the means since the last one, over all processes; its numbers, on the main process.

    The bar shows the loss until the next.
    """
    state, engine = run.state, run.engine
    means = engine.reduce(state.sums.total / max(state.sums.count, 1), reduction="mean").float()
    state.sums = Sums.zero(engine.device)
    check_finite(means[0], means[0] if state.scaler is not None else means[1], state.step)
    if metrics is None:
        return None
    images_per_s, left, seconds = rate.look(state.step)
    loss, norm = means.tolist()
    numbers = {"loss": loss, "grad_norm": norm, "lr": learning_rate(run.config, state.step - 1)}
    numbers |= {"images_per_s": round(images_per_s, 1), "seconds": round(seconds, 2)}
    if pace is not None:
        numbers |= pace.numbers(images_per_s)
    metrics.write(state.step, numbers)
    bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
    log.info(
        "step %d/%d  loss %.5f  grad norm %.3f  %.0f images/s%s  ETA %s",
        state.step, run.config.train.n_steps, loss, norm, images_per_s,
        pace.text(images_per_s) if pace is not None else "", clock(left),
    )  # fmt: skip
    return numbers


def _save(run: Run, watch: Watch | None, metrics: Metrics | None, must_succeed: bool) -> None:
    """Saves on the main process. Should the disk be full, training continues and the next time may succeed."""
    state, t, folder = run.state, run.config.train, run.folder.checkpoints
    loss, norm = state.sums.total
    check_finite(loss, loss if state.scaler is not None else norm, state.step)
    checkpoint.refuse_diverged(state.step, state.tensors())  # on all processes, which would wait for the main one
    if metrics is not None:
        check_disk(run, metrics)
        try:
            checkpoint.save(folder, state.step, state.tensors(), state.to_meta(), run.hooks.on_write)
        except CheckpointError as error:
            if must_succeed:
                raise
            text = f"{error}. Training continues; the next attempt is in {t.save_freq} steps"
            metrics.alert("disk", state.step, text)
        else:
            _prune(run, watch)
    run.engine.wait_for_everyone()


def _snapshot(run: Run) -> None:
    """Keeps the averages by power functions. Should the disk be full, training continues without this snapshot."""
    state = run.state
    powers = {name: part.tensors() for name, part in state.parts.items() if name.startswith("power_")}
    checkpoint.refuse_diverged(state.step, powers)
    if run.is_main:
        try:
            checkpoint.save(run.folder.snapshots, state.step, powers, state.meta, run.hooks.on_write)
        except CheckpointError as error:
            log.error("%s. Training continues without this snapshot", error)


def _prune(run: Run, watch: Watch | None) -> None:
    """Removes old checkpoints. What is still being judged stays: after a kill it is judged again."""
    t, pending = run.config.train, watch.pending if watch is not None else []
    checkpoint.prune(run.folder.checkpoints, t.keep_last, t.keep_every, pending)


def _sample(run: Run, metrics: Metrics | None) -> None:
    """A grid of samples of the averaged network: always the same starting noise, so that grids can be compared.

    Of a class-conditional network a row is a class, if there are two images or more of each.
    """
    t = run.config.train
    sampling = run.config.sampling_in_training(t.sample_steps)
    log.info("sampling %d images for the grid of step %d", t.n_samples, run.state.step)  # minutes on a CPU
    images, columns = by_class(preview(run.averaged, sampling, t.n_samples), sampling.period(run.config.classes))
    if metrics is not None:
        path = run.folder.samples / f"step{run.state.step:08d}.png"
        with metrics.spare("a grid of samples"):
            save_png(grid(images, columns), path)
            metrics.image(run.state.step, path)


def _judge(run: Run) -> Judge | None:
    """What judges the averaged network, if ``train.eval`` wants it judged; only then is evaluation imported."""
    if not run.config.train.eval.every:
        return None
    from ddpm_ip.evaluate.during import Judge

    return Judge(run.config, run.images, run.averaged)


def _make_up(run: Run, judge: Judge | None, watch: Watch | None, metrics: Metrics | None, lacks: Owed) -> None:
    """Makes what is owed. The averaged network takes the weights of older checkpoints in between, and nothing else."""
    if lacks.grid:
        _sample(run, metrics)
    if judge is None or not lacks.evaluations:
        return
    average = run.state.parts["ema"]
    now = {name: value.detach().clone() for name, value in average.tensors().items()}
    for path in lacks.evaluations:
        found = checkpoint.read(path)
        average.load(found.tensors("ema"))
        _evaluate(run, judge, watch, found)
    average.load(now)


def _evaluate(run: Run, judge: Judge, watch: Watch | None, state: Judged) -> None:
    """Takes samples of the averaged network; they are judged while training continues."""
    if watch is not None:
        watch.make_room()
    try:
        conclude = judge()
    except OSError as error:  # there was no room for its temporary files
        if watch is None or run.engine.num_processes > 1:  # the others wait for what this one cannot give
            raise
        watch.pass_over(error)
        return
    if watch is not None and conclude is not None:
        watch.begin(state, conclude)


def fresh_state(config: Config, accelerator: Accelerator) -> TrainState:
    """The state at step 0: network, average and optimizer, on the device."""
    torch.manual_seed(config.seed)
    network = config.build_network().to(accelerator.device)
    if config.train.gradient_checkpointing:
        recompute_blocks(network)
    o = config.train.optim
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o.name]
    optimizer = kind(network.parameters(), lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay, fused=True)
    average = EMA(network, config.train.ema_decays[0], config.train.ema_warmup)
    times = config.train.times.start(config.diffusion.schedule, accelerator.device)
    sums, more = Sums.zero(accelerator.device), further_averages(config, network)
    return TrainState(network, average, optimizer, sums, accelerator.scaler, times, more)


def build(config: Config, images: ImageSet, accelerator: Accelerator) -> tuple[TrainState, Step]:
    """A fresh state, and the step that changes it, as a run would have them.

    Raises:
        DataError, ConfigError: data, model and processes do not fit together.
    """
    set_backends(config)
    check(config, images, accelerator.num_processes)
    state = fresh_state(config, accelerator)
    return state, make_step(config, accelerator, make_feed(config, images, accelerator), state)


def make_feed(config: Config, images: ImageSet, accelerator: Accelerator) -> Feed:
    """This process's share of the images of each step."""
    t = config.train
    if config.classes is None:  # labels are not even brought to the device
        images = replace(images, labels=None)
    return Feed(images, config.seed, t.batch_size, own_rows(config, accelerator), t.flip, accelerator.device)


def _agree(path: Path) -> Path:
    """The main process's path, since clocks differ."""
    paths = [str(path)]
    broadcast_object_list(paths)
    return Path(paths[0])


def _too_large(config: Config, accelerator: Accelerator) -> str:
    """What training needs memory for, and how it can be less."""
    micro = at_once(config, accelerator)
    _, height, width = config.shape
    return (
        f"there is too little memory to train with {micro} images of {height} x {width} pixels at once. What was "
        f"saved is intact; continue with -r latest and one of: --train.micro_batch {max(1, micro // 2)} (the same "
        "batch, in more passes), --train.gradient_checkpointing true (slower), --train.mixed_precision bf16, a smaller "
        "--train.batch_size, or a smaller --model.dim"
    )
