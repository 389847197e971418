"""Processes: several jobs at once, each of them commands one after another, with its own log and its own device.

A job that fails takes no other with it. Ctrl-C, or a signal of :data:`ddpm_ip.signals.PREEMPTION`, is passed on to
what runs, and nothing new is begun; a second Ctrl-C ends what runs at once.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from ddpm_ip.errors import UserError
from ddpm_ip.files import make_folder, refuse_special
from ddpm_ip.plain import UNREADABLE, visible
from ddpm_ip.run.log import clock
from ddpm_ip.signals import PREEMPTION, handled

POLL_SECONDS = 0.1
STATUS_SECONDS = 30.0
TAIL_BYTES = 10_000
AT_ONCE: int = getattr(signal, "SIGKILL", 9)  # Windows has no such name
DATE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "  # at the beginning of a line of a log
State = Literal["done", "failed", "stopped"]


class Process(Protocol):
    """What is needed of a :class:`subprocess.Popen`."""

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...


Start = Callable[[Sequence[str], Mapping[str, str], Path], Process]


@dataclass(frozen=True)
class Stage:
    """One command of a job.

    Attributes:
        doing: what it does, in one word: ``training``.
        words: of the command, without ``ddpm-ip``.
    """

    doing: str
    words: Sequence[str]


@dataclass(frozen=True)
class Job:
    """Commands one after another.

    Attributes:
        name: for people.
        log: the file that their output is appended to.
        stages: says what is missing; asked when its turn comes.
        done: called after each command that ended well; what it raises fails the job.
    """

    name: str
    log: Path
    stages: Callable[[], Sequence[Stage]]
    done: Callable[[Stage], None] = lambda stage: None


@dataclass(frozen=True)
class Result:
    """How a job ended: at which command, with which exit code (negative: by that signal), or why without a process."""

    job: Job
    state: State
    doing: str = ""
    code: int = 0
    why: str = ""


@dataclass(eq=False)
class _Running:
    job: Job
    place: Mapping[str, str]
    rest: Sequence[Stage]
    stage: Stage
    process: Process
    begun: float
    told: str = ""


class Child(subprocess.Popen[bytes]):
    """A process that stops where a SIGTERM is asked for, and ends at once for any other signal.

    Windows sends no signals but ends what is signalled: there the child is told by its standard input (``child.py``).
    """

    def send_signal(self, sig: int) -> None:
        if os.name != "nt":
            super().send_signal(sig)
        elif sig == signal.SIGTERM and self.stdin is not None:
            self.stdin.close()
        else:
            self.terminate()


def start_process(words: Sequence[str], place: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A command of ddpm-ip that stops when this process is gone.

    Args:
        words: of the command.
        place: variables of its environment, as of :func:`places`.
        log: the file that its output is appended to.
    """
    refuse_special(log)
    make_folder(log.parent)
    with open(log, "ab") as output:
        return Child(
            [sys.executable, "-m", "ddpm_ip.sweep.child", *words],
            stdin=subprocess.PIPE,  # never written to; see child.py
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **place},
            start_new_session=True,  # Ctrl-C comes through this process
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )


def gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count, said = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in said.split(",")][:count] if said else list(map(str, range(count)))


def places(count: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Where jobs run, one place a job at a time, as variables of the environment.

    Args:
        count: how many.
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them; with more places than GPUs, several share one.
    """
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]
    return [{"LOCAL_WORLD_SIZE": str(count)} for _ in range(count)]  # they share the cores evenly


@dataclass
class Jobs:
    """Runs jobs.

    Args:
        places: see :func:`places`.
        say: what a line for people goes to.
        start: starts a process; for tests.
    """

    places: Sequence[Mapping[str, str]]
    say: Callable[[str], None]
    start: Start = start_process
    signal: int | None = field(default=None, init=False)  # that asked to stop
    _at_once: bool = field(default=False, init=False)
    _passed_on: list[int] = field(default_factory=list, init=False)
    _running: list[_Running] = field(default_factory=list, init=False)
    _results: list[Result] = field(default_factory=list, init=False)
    _took: list[float] = field(default_factory=list, init=False)  # seconds of those that are done

    def run(self, jobs: Iterable[Job]) -> list[Result]:
        """Runs all, in their order, as many at once as there are places; those that were not begun have no result."""
        waiting, free, told = list(jobs), list(self.places), time.monotonic()
        total = len(waiting)
        with handled([*PREEMPTION, signal.SIGINT], self._note):
            while self._running or (waiting and self.signal is None):
                while waiting and free and self.signal is None:
                    self._begin(waiting.pop(0), free, total)
                for one in list(self._running):
                    self._look(one, free, total)
                if time.monotonic() - told > STATUS_SECONDS:
                    told = time.monotonic()
                    self._status()
                self._pass_on()
                time.sleep(POLL_SECONDS if self._running else 0)
        return self._results

    def _begin(self, job: Job, free: list[Mapping[str, str]], total: int) -> None:
        try:
            rest = list(job.stages())
        except UserError as error:
            self._end(Result(job, "failed", "before it began", why=str(error)), total, "failed")
            return
        if not rest:
            self._end(Result(job, "done"), total, "nothing is missing")
            return
        place, begun = free.pop(0), time.monotonic()
        self._running.append(self._start(job, place, rest, begun))

    def _start(self, job: Job, place: Mapping[str, str], stages: Sequence[Stage], begun: float) -> _Running:
        """Starts the first of the commands; what the log says already is not told."""
        stage, *rest = stages
        self.say(f"{job.name}: {stage.doing}")
        told = _last_line(job)
        return _Running(job, place, rest, stage, self.start(stage.words, place, job.log), begun, told)

    def _look(self, one: _Running, free: list[Mapping[str, str]], total: int) -> None:
        code, why = one.process.poll(), ""
        if code is None:
            return
        if code == 0:
            try:
                one.job.done(one.stage)
            except UserError as error:
                why = str(error)
            if one.rest and not why and self.signal is None:
                self._running.remove(one)
                self._running.append(self._start(one.job, one.place, one.rest, one.begun))
                return
        stopped = self.signal is not None and not why and (code != 0 or bool(one.rest))
        state: State = "stopped" if stopped else "failed" if code or why else "done"
        self._running.remove(one)
        free.append(one.place)
        seconds = time.monotonic() - one.begun
        left = self._left(seconds, total) if state == "done" else ""
        self._end(Result(one.job, state, one.stage.doing, code, why), total, f"{state} after {clock(seconds)}{left}")

    def _left(self, seconds: float, total: int) -> str:
        """The time of the jobs that have no result yet, if each takes as long as the mean of those that were made."""
        self._took.append(seconds)
        left = total - len(self._results) - 1
        if not left:
            return ""
        mean = sum(self._took) / len(self._took)
        return f"; about {clock(mean * left / min(left, len(self.places)))} left, if the rest take as long"

    def _end(self, result: Result, total: int, how: str) -> None:
        self._results.append(result)
        where = "" if result.state == "done" else f" {result.doing}"
        self.say(f"[{len(self._results)}/{total}] {result.job.name}:{where} {how}")

    def _status(self) -> None:
        """A line for each that runs: the last one of its log, where that is another."""
        for one in self._running:
            last = _last_line(one.job)
            if last and last != one.told:
                one.told = last
                self.say(f"{one.job.name}: {one.stage.doing}: {last}")

    def _pass_on(self) -> None:
        if self.signal is None:
            return
        number = AT_ONCE if self._at_once else signal.SIGTERM
        if number not in self._passed_on:
            self._passed_on.append(number)
            later = "stopping: what runs is saved first (a second Ctrl-C ends it at once)"
            self.say("stopping at once" if self._at_once else later)
            for one in self._running:
                one.process.send_signal(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._at_once = self._at_once or self.signal == signal.SIGINT == number
        self.signal = number


def _last_line(job: Job) -> str:
    """The last line of a job's log, without its date; empty if there is none."""
    return re.sub(DATE, "", next(iter(tail(job.log, 1)), ""))


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a log that hold something; none if it cannot be read."""
    try:
        with open(file, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
            text = log.read(TAIL_BYTES).decode("utf-8", "replace")
    except UNREADABLE:
        return []
    return [visible(line.rstrip()) for line in text.splitlines() if line.strip()][-lines:]
