"""The program ``sweep``: runs that differ in some keys and in the seed, trained and measured, and what they say.

    SWEEP_DIR/sweep.json             what was asked for
    SWEEP_DIR/gamma=0.1,seed=0/      a run, as ``ddpm-ip train``, ``table`` and ``exposure`` make it
    SWEEP_DIR/logs/...log            what these said, a file a run
    SWEEP_DIR/done.json              what was measured of each run already
    SWEEP_DIR/sweep.csv, .md         mean and deviation over the seeds
    SWEEP_DIR/exposure.csv           the same of the curves of exposure bias; drawn, curves.svg and .png
    SWEEP_DIR/report.html            one page of all runs

Each run is processes of its own, so that one that fails takes no other with it. A call that was ended, however that
was, continues when it is made again, with what is missing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import write_json
from ddpm_ip.output import say
from ddpm_ip.plain import shown
from ddpm_ip.report.lines import check as check_plots
from ddpm_ip.report.page import write_report
from ddpm_ip.run.lock import Lock
from ddpm_ip.sweep.curves import write_curves
from ddpm_ip.sweep.jobs import Jobs, Result, Start, start_process, tail
from ddpm_ip.sweep.outlook import outlook
from ddpm_ip.sweep.plan import Asked, SweepRun, grown, in_words, read_asked
from ddpm_ip.sweep.stages import Stages
from ddpm_ip.sweep.summary import Summary
from ddpm_ip.train.start import check

WAIT_SECONDS = 120.0  # for runs of a call that was killed, which stop by themselves
TOLD_LINES = 8  # of the log of a run that failed
Check = Callable[[Config, Asked, bool], int]


@dataclass(frozen=True)
class Setup:
    """What a sweep is made with.

    Attributes:
        places: where runs are made, see :func:`ddpm_ip.sweep.jobs.places`.
        check: raises what would keep a run of a configuration, which is trained or not yet, from being measured, and
            says how many cells its table will have.
        start: starts a process; for tests.
        say: what lines for people go to.
    """

    places: Sequence[dict[str, str]]
    check: Check
    start: Start = start_process
    say: Callable[[str], None] = say


def sweep(asked: Asked, folder: Path, setup: Setup) -> int:
    """Makes what is missing of a sweep, and tells what it found.

    Args:
        asked: the runs and what is measured of them.
        folder: SWEEP_DIR.
        setup: what it is made with.

    Returns:
        The exit code: 0; 1 if a run failed; 128 and the number of the signal that stopped it.

    Raises:
        ConfigError: the folder holds something else, or something that was asked for cannot be; nothing was begun.
        UserError: the data, or what measures, is not there; nothing was begun.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a sweep starts its runs itself, each as one process: start it without torchrun and accelerate-launch, and "
            "give --jobs for several runs at once"
        )
    with Lock(folder / "lock", "sweeping in"):
        asked = settle(asked, folder)
        stages = Stages(asked, folder)
        cells = check_all(asked, stages, setup)
        write_json(folder / "sweep.json", asked.to_dict())
        setup.say(announced(asked, cells, len(setup.places)))
        for said in outlook(asked, stages, len(setup.places)):
            setup.say(said)
        _wait_for_others([folder / run.name for run in asked.runs], setup.say)
        jobs = Jobs(setup.places, setup.say, setup.start)
        results = jobs.run([stages.job(run) for run in asked.runs])
        if jobs.signal is not None:
            setup.say(f"stopped by signal {jobs.signal}; the same command, or -e {folder} alone, continues")
            return 128 + jobs.signal
        try:
            conclude(asked, folder, setup.say)
        finally:
            failed = [result for result in results if result.state != "done"]
            for result in failed:
                setup.say(told(result))
            if failed:
                setup.say(f"{len(failed)} of {len(asked.runs)} runs failed; the same command makes what is missing")
    return 1 if failed else 0


def settle(asked: Asked, folder: Path) -> Asked:
    """What is asked of a folder: of a sweep that is there the same, or more; runs of it may be there already.

    Raises:
        ConfigError: it holds something else.
    """
    if (old := read_asked(folder / "sweep.json")) is not None:
        return grown(old, asked, folder)
    own = {"lock", *(run.name for run in asked.runs)}  # runs that were made by hand are looked at one by one
    if folder.is_dir() and any(path.name not in own for path in folder.iterdir()):
        raise ConfigError(
            f"{shown(folder)} holds something that is no sweep, and nothing of it was touched: choose another folder "
            "with -e"
        )
    return asked


def check_all(asked: Asked, stages: Stages, setup: Setup) -> int:
    """Tells what cannot be before anything is trained; returns the number of cells of all tables.

    Raises:
        UserError: something cannot be: a run, its data, its table, or the page.
    """
    check_plots()
    images: dict[str, ImageSet] = {}
    cells: dict[str, int] = {}
    total = 0
    for run in asked.runs:
        tree = run.config.to_dict()
        data = json.dumps(tree["data"])
        if data not in images:
            images = {data: run.config.data.open(progress=True)}  # one at a time: data sets may be large
        check(run.config, images[data], processes=1)
        trained, sections = stages.is_trained(run), ("data", "model", "diffusion", "classes", "sampling")
        alike = json.dumps([trained, *(tree[key] for key in sections)])
        if alike not in cells:
            cells[alike] = setup.check(run.config, asked, trained)
        total += cells[alike]
    return total


def announced(asked: Asked, cells: int, at_once: int) -> str:
    """What will be made, and whether the runs cost the same, in words."""
    runs, images = asked.runs, sum(run.images for run in asked.runs)
    over = [f"{len(values)} of {key}" for key, values in asked.over.items()]
    what = " x ".join([*over, f"{len(asked.seeds)} seed{'s' if len(asked.seeds) > 1 else ''}"])
    parts = [
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} ({what}), {at_once} at a time: "
        f"{sum(run.config.train.n_steps for run in runs):,} steps, {images:,} images, {cells:,} cells of tables"
        + ("" if asked.exposure is None else f", {len(runs)} measurements of exposure bias")
    ]
    if asked.unequal:
        parts.append(f"The runs do not cost the same: {', '.join(asked.unequal)} changes what a run costs")
    elif len(_costs(runs)) > 1:
        parts.append("The runs have different batches, and each sees as many images, up to a batch")
    else:
        t = runs[0].config.train
        parts.append(f"All runs cost the same: {t.n_steps:,} steps of {t.batch_size:,} images")
    if "train.batch_size" in asked.unequal:
        parts.append("--images N instead of train.n_steps gives each as many images")
    return ". ".join(parts) + "."


def _costs(runs: Sequence[SweepRun]) -> set[tuple[int, int]]:
    return {(run.config.train.n_steps, run.config.train.batch_size) for run in runs}


def _wait_for_others(folders: Sequence[Path], tell: Callable[[str], None]) -> None:
    """Waits while runs of a call that was killed are still being saved.

    Raises:
        ConfigError: one does not end.
    """
    until, waiting = time.monotonic() + WAIT_SECONDS, False
    for folder in folders:
        while (folder / "lock").exists():
            try:
                with ExitStack() as stack:
                    stack.enter_context(Lock(folder / "lock"))
                break
            except ConfigError:
                if time.monotonic() > until:
                    raise
                if not waiting:
                    tell("waiting for runs of an earlier call, which are being saved")
                waiting = True
                time.sleep(0.2)


def conclude(asked: Asked, folder: Path, tell: Callable[[str], None]) -> None:
    """Writes what the sweep found: its numbers and, of the runs that have a checkpoint, the page."""
    curves, damaged = write_curves(asked, folder)
    summary = Summary.of(asked, folder)
    summary = replace(summary, problems=[*summary.problems, *damaged])
    files = [*summary.write(folder), *curves]
    trained = [folder / run.name for run in asked.runs if any((folder / run.name / "ckpt").glob("step*"))]
    if trained:
        over = "; ".join(f"{key} {', '.join(map(in_words, values))}" for key, values in asked.over.items())
        seeds = f"{len(asked.seeds)} seed{'s' if len(asked.seeds) > 1 else ''}"
        title = f"Sweep: {over or 'one configuration'}, {seeds}"
        files.append(write_report(trained, folder / "report.html", title=title))
    tell("\n".join([summary.as_markdown(), *map(str, files)]))


def told(result: Result) -> str:
    """Why a run failed, for a person."""
    how = f"was ended by signal {-result.code}" if result.code < 0 else f"failed with exit code {result.code}"
    if result.why:
        return f"{result.job.name}: failed {result.doing}: {result.why}"
    lines = "\n".join(f"  {line}" for line in tail(result.job.log, TOLD_LINES))
    return f"{result.job.name}: {result.doing} {how}. The end of {result.job.log}:\n{lines}"
