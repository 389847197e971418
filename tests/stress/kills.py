"""Real processes that are ended at random moments, and then given the same call again, as often as it takes.

A process is forked with PyTorch imported. What is left at the end must be, byte for byte, what an undisturbed call
leaves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.stress import goods
from tests.stress.cases import Case, Fault
from tests.stress.goods import good
from tests.tiny import assert_same_state, contents, numbers, run, steps_saved, tiny

from ddpm_ip.config import load
from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.program import EvaluateOptions, evaluate_files
from ddpm_ip.files import read_rows
from ddpm_ip.run import checkpoint
from ddpm_ip.sample.program import sample
from ddpm_ip.table.program import table
from ddpm_ip.train.loop import Hooks

TRAINED = {
    "n_steps": 16,
    "save_freq": 2,
    "print_freq": 3,
    "sample_freq": 8,
    "keep_last": 2,
    "eval": {"every": 4, "n_samples": 8, "steps": 2},
}
# Retention is the business of the next save. So a kill after the last one may leave what only that would remove: the
# oldest of three, and those whose numbers were still being worked out.
MORE = {8, 12}
SOFT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BEGUN = "begun"  # a file that is there once the process has taken a step
GENTLE = "signals-"  # before the name of a program that may save before it ends
ENDS = 5  # of a case
REFUSED = 9  # exit code of a process whose call was refused


class Program(NamedTuple):
    """A call that can be given again, and what it leaves."""

    begin: Callable[[Path], Any]
    call: Callable[[Path], Any]
    compare: Callable[[Path, Path], None]


def _train(folder: Path) -> Any:
    pause = Hooks(  # or few would be killed while they save
        on_write=lambda name: time.sleep(0.01), on_step=lambda step: (folder / BEGUN).touch()
    )
    return run(tiny(**TRAINED), folder / "run", "latest", pause)


def _same_run(one: Path, other: Path) -> None:
    one, other = one / "run", other / "run"
    assert_same_state(one, other, TRAINED["n_steps"])
    assert numbers(one) == numbers(other)
    assert _evaluations(one) == _evaluations(other)
    there, expected = _paths(one), _paths(other)
    assert there == expected, sorted(there ^ expected)
    steps = set(steps_saved(one)) - MORE
    assert steps in ({14, 16}, {15, 16}), steps  # one that was asked to stop after step 15 has saved that
    for kept in ("ckpt", "best"):
        assert [path.name for path in sorted((one / kept).iterdir()) if not _is_whole(path)] == []
    (best,) = (other / "best").iterdir()
    assert_same_state(one, other, int(best.name.removeprefix("step")), "best")
    assert not (one / "lock").exists() or _free(one / "lock")


def _paths(folder: Path) -> set[str]:
    """All that a run has left, but checkpoints, its log (none is kept here), and TensorBoard's, one of each process."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if path.parts[0] not in ("tensorboard", "lock", "ckpt", "log.txt")}


def _is_whole(path: Path) -> bool:
    return bool(checkpoint.read(path))


def _free(lock: Path) -> bool:
    """Whether nobody holds it."""
    from ddpm_ip.run.lock import Lock

    with Lock(lock):
        return True


def _evaluations(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    return {line["step"]: line["values"] for line in lines}


def _same_files(one: Path, other: Path) -> None:
    first, second = contents(one), contents(other)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def _same_numbers(one: Path, other: Path) -> None:
    values = [[row["values"] for row in read_rows(home / "png" / "evaluation.json")] for home in (one, other)]
    assert values[0] == values[1]


def _sample(name: str, folder: Path) -> None:
    sample(goods.config(), good("run"), folder / name, goods.SAMPLES)


def _with(name: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.copytree(good(name), folder, dirs_exist_ok=True)


PROGRAMS: dict[str, Program] = {
    "train": Program(lambda folder: None, _train, _same_run),
    "sample": Program(lambda folder: None, partial(_sample, "png"), _same_files),
    "sample-npz": Program(lambda folder: None, partial(_sample, "a.npz"), _same_files),
    "evaluate": Program(
        _with("samples"),
        lambda folder: evaluate_files(folder / "png", EvaluateOptions("digits", extractor="pixels", n_samples=6)),
        _same_numbers,
    ),
    "table": Program(
        _with("run"),
        lambda folder: table(load(folder / "config.yaml"), folder, goods.TABLE),
        lambda one, other: _same_files(one / "table", other / "table"),
    ),
}


@cache
def undisturbed(name: str) -> tuple[Path, float]:
    """What a call leaves that nobody disturbs, and the seconds that it takes."""
    folder = good("empty") / name
    folder.mkdir()
    PROGRAMS[name].begin(folder)
    start = time.monotonic()
    assert ended(started(PROGRAMS[name], folder)) == 0, name
    return folder, time.monotonic() - start


def prepare(name: str) -> None:
    """Makes good files, and what an undisturbed call leaves."""
    good("samples")
    undisturbed(name.removeprefix(GENTLE))


def play(case: Case, home: Path) -> Counter[str]:
    """Ends a call :data:`ENDS` times, and then leaves it alone; if it is done before, another begins from the start."""
    name, rng, left, number = case.name.removeprefix(GENTLE), case.rng, ENDS, 0
    program, (straight, seconds) = PROGRAMS[name], undisturbed(name)
    while left:
        folder = home / str(number := number + 1)
        folder.mkdir()
        program.begin(folder)
        while left and (code := _disturbed(program, folder, rng, seconds, case.name != name)) != 0:
            left -= 1
            if code == REFUSED:
                raise Fault(f"a call that is given again after a kill was refused: {_refusal(home)}")
        if (code := ended(started(program, folder))) != 0:
            raise Fault(f"the last call ended with {code}: {_refusal(home)}")
        compared(program, folder, straight)
    return Counter({"signals" if case.name != name else "kills": ENDS, "success": 1})


def _refusal(home: Path) -> str:
    path = home / "refused"
    return path.read_text()[:300] if path.exists() else ""


def compared(program: Program, folder: Path, straight: Path) -> None:
    """Raises a Fault that says what is not the same."""
    try:
        program.compare(folder, straight)
    except AssertionError as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line
        raise Fault(f"something else is left than by an undisturbed call: {line} {str(error)[:300]}") from error


def _disturbed(program: Program, folder: Path, rng: Random, seconds: float, gently: bool) -> int:
    """Starts a call and ends it at a random moment; its exit code, 0 if it was done before.

    Raises:
        Fault: it ended otherwise.
    """
    (folder / BEGUN).unlink(missing_ok=True)
    process, number = started(program, folder), rng.choice(SOFT) if gently else signal.SIGKILL
    time.sleep(rng.uniform(0, 1.1) * seconds)
    begun = (folder / BEGUN).exists()
    os.kill(process, number)
    code = ended(process)
    saved = 128 + number
    if not gently:
        expected = {0, REFUSED, -number}
    elif begun and not (folder / "run" / "ckpt" / f"step{TRAINED['n_steps']:08d}").exists():
        expected = {saved}  # it trained when it was asked to stop
    else:
        expected = {0, REFUSED, -number, saved}
    if code not in expected:
        raise Fault(f"{number.name} led to exit code {code}")
    return code


def started(program: Program, folder: Path) -> int:
    """Forks a process that makes the call; its id."""
    if process := os.fork():
        return process
    code = 1
    try:
        for number in (*SOFT, signal.SIGALRM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        outcome = program.call(folder)
        stopped = getattr(outcome, "signal", None)
        code = 0 if stopped is None else 128 + stopped
    except UserError as error:
        code = REFUSED
        (folder.parent / "refused").write_text(str(error))
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """Waits for it: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
