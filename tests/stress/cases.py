"""Cases, and processes that run them one after the other: watched, bounded, and of no harm to each other when they die.

A process is forked with PyTorch imported, and says which case it begins. So a crash, a case that hangs and one that
takes too much memory are known by their number; the next process takes up the rest.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

import torch

import ddpm_ip
from ddpm_ip.errors import UserError

LONGEST = {"mutations": 60.0, "damages": 60.0}  # seconds that a case may take before its process is ended
PATIENCE = 600.0  # the same, of other parts
MEMORY, ADDRESSES = 500_000_000, 3_000_000_000  # bytes that a case may add, resident and reserved
MESSAGE = 20_000  # characters that an error for a person may have
SHARE = 200  # cases of a process
SHARED = Path("/dev/shm")
# Where folders are made and removed without a disk, if there is room; None for the usual place.
SCRATCH = SHARED if os.access(SHARED, os.W_OK) and shutil.disk_usage(SHARED).free > 2 * 10**9 else None
PACKAGE = Path(ddpm_ip.__file__).parent


class Fault(AssertionError):
    """A case ended in something that is neither success nor an error for a person."""


@dataclass(frozen=True)
class Case:
    """One try, and all that it depends on."""

    part: str
    name: str
    number: int
    seed: int = 0

    @property
    def rng(self) -> Random:
        return Random(f"{self.part} {self.name} {self.seed} {self.number}")

    @property
    def again(self) -> str:
        """The command that runs it alone, in one process, with a traceback."""
        return f"python -m tests.stress --seed {self.seed} --part {self.part} --name {self.name} --case {self.number}"


Play = Callable[[Case, Path], Counter[str]]
"""Plays a case, in an empty folder of its own. What it counts is added up; a fault is raised."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case: what it counted, or a fault and its kind (type, and place in the package); and how soon."""

    case: Case
    counts: Counter[str] = field(default_factory=Counter)
    fault: str | None = None
    kind: str = ""
    seconds: float = 0.0


# --- one case --------------------------------------------------------------------------------------------------------


def asked(call: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Calls what must succeed or tell a person why not: ``success`` and the result, or ``refused`` and the message.

    Raises:
        Fault: the message is empty or endless. Whatever else is raised is left alone.
    """
    try:
        return "success", call(*arguments)
    except UserError as error:
        message = str(error)
    if not 0 < len(message) <= MESSAGE:
        raise Fault(f"an error of {len(message):,} characters: {message[:200]}")
    return "refused", message


def outcome_of(case: Case, play: Play) -> Outcome:
    """Runs a case in this process."""
    with tempfile.TemporaryDirectory(prefix=_prefix(os.getpid()), dir=SCRATCH, ignore_cleanup_errors=True) as folder:
        (home := Path(folder) / "home").mkdir()
        _forbidden[:], _watched[:] = [], [folder]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            counts = play(case, home)
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            if grown > MEMORY:
                raise Fault(f"it took {grown // 10**6:,} MB of memory")
            if _forbidden:
                raise Fault(f"it did what no file may make it do: {_forbidden[0]}")
            return Outcome(case, Counter(cases=1) + counts)
        except BaseException as error:  # SystemExit and KeyboardInterrupt, too, are not what a file should lead to
            said = f"{type(error).__name__}: {str(error)[:300]}"
            return Outcome(case, Counter(cases=1, faults=1), said, f"{type(error).__name__} {_place(error)}")
        finally:
            _watched[:] = []


def _prefix(process: int) -> str:
    return f"ddpm-ip-case-{process}-"


def _place(error: BaseException) -> str:
    """The innermost line of the package that an error came through; of a fault, what it says, but for numbers."""
    if isinstance(error, Fault):
        return re.sub(r"\d[\d,.]*", "N", str(error))[:100]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(PACKAGE)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"


_watched: list[str] = []  # the folder of the case, the only one that may be written to
_forbidden: list[str] = []
CALLS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event in CALLS and arguments[0] != "git":  # which says what commit is running
        _forbidden.append(f"{event} {arguments!r:.200}")
    elif event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else set(mode or "") & set("wax+")
        if writes and isinstance(path, (str, bytes)) and not _may_write(os.fsdecode(path)):
            _forbidden.append(f"writing to {path!r:.200}")


def _may_write(path: str) -> bool:
    return os.path.realpath(path).startswith((os.path.realpath(_watched[0]), "/dev/null"))


def watch() -> None:
    """From now on, what a file makes this process do that none may is noticed."""
    global _watching
    if not _watching:
        sys.addaudithook(_audit)
        _watching = True


_watching = False


# --- many cases ------------------------------------------------------------------------------------------------------


def run_all(cases: Sequence[Case], plays: Mapping[str, Play], cores: Sequence[int]) -> Iterator[Outcome]:
    """Runs cases in forked processes, so many at a time; outcomes come as they are known.

    Args:
        cases: in an order that puts those of one name together.
        plays: by part.
        cores: of each process one.
    """
    context = multiprocessing.get_context("fork")
    size = max(1, min(SHARE, len(cases) // (2 * len(cores))))
    shares = [list(cases[i : i + size]) for i in range(0, len(cases), size)][::-1]
    busy: dict[Connection, _Worker] = {}
    free = list(cores)[::-1]
    try:
        while shares or busy:
            while shares and free:
                ours, theirs = context.Pipe(duplex=False)
                share, core = shares.pop(), free.pop()
                process = context.Process(target=_work, args=(share, plays, theirs, core, [*busy, ours]))
                process.start()
                theirs.close()
                busy[ours] = _Worker(process, share, core)
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                try:
                    message = connection.recv()  # type: ignore[union-attr]
                except EOFError:
                    del busy[connection]  # type: ignore[arg-type]
                    free.append(worker.core)
                    left = worker.left
                    if left and worker.begun:
                        yield worker.crash()
                        left = left[1:]
                    if left:
                        shares.append(left)
                    continue
                if isinstance(message, Outcome):
                    worker.left, worker.begun = worker.left[1:], False
                    yield message
                else:
                    worker.begun = True
    finally:
        for worker in busy.values():
            worker.end()


@dataclass
class _Worker:
    process: Any
    left: list[Case]
    core: int
    begun: bool = False

    def end(self) -> None:
        """The process, those that it has started, and the folder of its case."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        for left in Path(SCRATCH or tempfile.gettempdir()).glob(f"{_prefix(self.process.pid)}*"):
            shutil.rmtree(left, ignore_errors=True)

    def crash(self) -> Outcome:
        """Of the case that it had begun."""
        self.end()
        code = self.process.exitcode
        hung = code == 1  # faulthandler's
        what = "it took too long" if hung else signal.Signals(-code).name if code < 0 else f"exit code {code}"
        what = f"the process ended: {what}"
        return Outcome(self.left[0], Counter(cases=1, faults=1), what, what)


def _work(
    share: Sequence[Case], plays: Mapping[str, Play], out: Connection, core: int, others: Sequence[Connection]
) -> None:
    for connection in others:  # or nobody would notice that the process which reads them is gone
        connection.close()
    os.setpgid(0, 0)
    faulthandler.disable()  # the process that waits says what ended this one
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    quiet()
    watch()
    _bound_memory()
    for case in share:
        out.send("begun")
        faulthandler.dump_traceback_later(LONGEST.get(case.part, PATIENCE), exit=True, file=sys.stderr)
        start = sum(os.times()[:4])  # processor seconds, those of ended children, too
        outcome = outcome_of(case, plays[case.part])
        outcome = replace(outcome, seconds=sum(os.times()[:4]) - start)
        faulthandler.cancel_dump_traceback_later()
        out.send(outcome)
        if outcome.fault and "memory" in outcome.fault.lower():
            break  # or what the next case takes would not be seen
    out.close()
    os._exit(0)


def quiet() -> None:
    """No logs, no progress bars, no files of compiled Python."""
    logging.disable(logging.CRITICAL)
    sys.dont_write_bytecode = True
    sys.stdout = sys.stderr = _null()


def _null() -> Any:
    return open(os.devnull, "w")


def _bound_memory() -> None:
    """A bomb is then a MemoryError, and not the end of the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def copied(good: Path, folder: Path) -> Path:
    """A copy of a folder."""
    shutil.copytree(good, folder, symlinks=True, dirs_exist_ok=True)
    return folder
