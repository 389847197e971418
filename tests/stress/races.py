"""Several processes that start at the same moment on the same folder. At least one succeeds, none does harm."""

from __future__ import annotations

import os
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.stress import kills
from tests.stress.cases import Case, Fault
from tests.stress.goods import good
from tests.stress.kills import PROGRAMS, compared, ended, undisturbed
from tests.tiny import run, tiny

from ddpm_ip.data import Folder
from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.program import EvaluateOptions, evaluate_files
from ddpm_ip.files import read_rows
from ddpm_ip.train.loop import Hooks


class Race(NamedTuple):
    """What is there before, what each process calls with its number, and what must hold afterwards.

    Args:
        begin: makes what is there.
        call: of process i.
        check: is given the folder and the numbers of the processes that succeeded.
        losers: whether a process may be refused while another works.
    """

    begin: Callable[[Path], Any]
    call: Callable[[Path, int], Any]
    check: Callable[[Path, list[int]], None]
    losers: bool = True


def _stale_lock(folder: Path) -> None:
    (folder / "run").mkdir()
    shutil.copy(good("texts") / "lock", folder / "run" / "lock")


def _train(folder: Path, i: int) -> None:
    def told(step: int) -> None:
        with open(folder / "steps", "a") as file:
            file.write(f"{step}\n")

    run(tiny(**kills.TRAINED), folder / "run", "latest", Hooks(on_step=told))


def _trained(folder: Path, winners: list[int]) -> None:
    steps = (folder / "steps").read_text().split()
    if steps != [str(i) for i in range(1, kills.TRAINED["n_steps"] + 1)]:
        raise Fault(f"two processes trained: {' '.join(steps)}")
    compared(PROGRAMS["train"], folder, undisturbed("train")[0])


def _same_as(name: str) -> Callable[[Path, list[int]], None]:
    def check(folder: Path, winners: list[int]) -> None:
        compared(PROGRAMS[name], folder, undisturbed(name)[0])

    return check


def _evaluate(folder: Path, i: int) -> None:
    evaluate_files(
        folder / "png", EvaluateOptions("digits", extractor="pixels", n_samples=3 + i, out=folder / "all.json")
    )


def _all_there(folder: Path, winners: list[int]) -> None:
    found = sorted(row["protocol"]["n_images"] for row in read_rows(folder / "all.json"))
    if found != [3 + i for i in winners]:
        raise Fault(f"of {len(winners)} evaluations that said they were written {len(found)} are there")


def _decode(folder: Path, i: int) -> None:
    images = Folder(root=str(folder / "png"), image_size=4, cache=str(folder / "cache")).open(progress=False)
    (folder / f"fingerprint{i}").write_text(images.fingerprint)


def _decoded(folder: Path, winners: list[int]) -> None:
    if len({(folder / f"fingerprint{i}").read_text() for i in winners}) != 1:
        raise Fault("two processes decoded other pixels")
    if left := [p.name for p in (folder / "cache").iterdir() if p.suffix == ".partial"]:
        raise Fault(f"left behind: {left}")


def _called(name: str) -> Callable[[Path, int], Any]:
    return lambda folder, i: PROGRAMS[name].call(folder)


RACES: dict[str, Race] = {
    "train": Race(_stale_lock, _train, _trained),
    "sample": Race(PROGRAMS["sample"].begin, _called("sample"), _same_as("sample")),
    "sample-npz": Race(PROGRAMS["sample-npz"].begin, _called("sample-npz"), _same_as("sample-npz")),
    "evaluate": Race(PROGRAMS["evaluate"].begin, _evaluate, _all_there),
    "table": Race(PROGRAMS["table"].begin, _called("table"), _same_as("table")),
    "decode": Race(kills._with("pictures"), _decode, _decoded, losers=False),
}


def prepare(name: str) -> None:
    """Makes what is there before, and what an undisturbed call leaves."""
    for needed in ("texts", "pictures", "samples"):
        good(needed)
    if name in PROGRAMS:
        undisturbed(name)


def play(case: Case, home: Path) -> Counter[str]:
    """Two to four processes, let go together."""
    race, n = RACES[case.name], case.rng.randint(2, 4)
    race.begin(home)
    gate, go = os.pipe()
    processes = [_started(partial(race.call, home, i), gate, go, home / f"error{i}") for i in range(n)]
    os.close(gate)
    os.close(go)  # at the end of the pipe all run
    codes = [ended(process) for process in processes]
    winners = [i for i, code in enumerate(codes) if code == 0]
    strange = [(home / f"error{i}").read_text() for i, code in enumerate(codes) if code not in (0, kills.REFUSED)]
    if strange:
        raise Fault(f"one of {n} ended with {strange[0][-300:]}")
    if not winners or (len(winners) < n and not race.losers):
        raise Fault(
            f"{len(winners)} of {n} succeeded: {(home / f'error{codes.index(kills.REFUSED)}').read_text()[-300:]}"
        )
    for path in home.glob("error*"):
        path.unlink()
    race.check(home, winners)
    return Counter({"starts": n, "success": len(winners), "refused": n - len(winners)})


def _started(call: Callable[[], Any], gate: int, go: int, errors: Path) -> int:
    if process := os.fork():
        return process
    code = 1
    try:
        os.close(go)
        os.read(gate, 1)
        call()
        code = 0
    except UserError as error:
        code = kills.REFUSED
        errors.write_text(str(error))
    except BaseException:
        errors.write_text(traceback.format_exc())
    finally:
        os._exit(code)
