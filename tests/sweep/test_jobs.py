"""Processes of a sweep: each on its own, as many at once as there are places, stopped together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_ip.errors import ConfigError
from ddpm_ip.sweep import jobs as module
from ddpm_ip.sweep.jobs import Job, Jobs, Stage, places, start_process, tail


class Fake:
    """A process that runs until it was looked at so often; a signal ends it, or not."""

    def __init__(self, looks: int = 1, code: int = 0, deaf: bool = False) -> None:
        self.looks, self.code, self.deaf = looks, code, deaf
        self.signals: list[int] = []

    def poll(self) -> int | None:
        self.looks -= 1
        return self.code if self.looks < 0 else None

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if not self.deaf or number == signal.SIGKILL:
            self.looks, self.code = 0, 128 + number if number != signal.SIGKILL else -number


class World:
    """Starts fakes by the command's words, and keeps what was started where."""

    def __init__(self, **fakes: Fake) -> None:
        self.fakes = fakes
        self.started: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.most = 0

    def start(self, words, place, log: Path) -> Fake:
        process = self.fakes.setdefault("_".join(words), Fake())
        self.started.append(("_".join(words), place["PLACE"]))
        self.most = max(self.most, sum(fake.looks >= 0 for name, fake in self.fakes.items() if name in self.names))
        return process

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]

    def jobs(self, count: int = 1) -> Jobs:
        return Jobs([{"PLACE": str(i)} for i in range(count)], self.said.append, self.start)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0)


def job(name: str, folder: Path, stages: tuple[str, ...] = ("training", "table"), **more) -> Job:
    return Job(name, folder / f"{name}.log", lambda: [Stage(doing, [name, doing]) for doing in stages], **more)


def test_commands_of_a_job_follow_each_other_and_jobs_share_the_places(tmp_path):
    done = []
    world = World(a_training=Fake(5), b_training=Fake(1), c_training=Fake(1))
    jobs = [job(name, tmp_path, done=lambda stage: done.append(stage.doing)) for name in "abc"]
    results = world.jobs(2).run(jobs)
    assert [result.job.name for result in results] == ["b", "a", "c"]
    assert {result.state for result in results} == {"done"}
    assert done.count("training") == done.count("table") == 3
    assert world.most == 2
    for name in "abc":
        assert world.names.index(f"{name}_training") < world.names.index(f"{name}_table")
    where = dict(world.started)
    assert where["a_training"] == where["a_table"] == "0"
    assert where["b_training"] == where["b_table"] == where["c_table"] == "1"


def test_a_job_that_fails_takes_no_other_with_it(tmp_path):
    def raises() -> list[Stage]:
        raise ConfigError("its folder holds another run")

    def fails(stage: Stage) -> None:
        raise ConfigError("the disk is full")

    world = World(a_training=Fake(1, 3), b_table=Fake(1, -9))
    lost = [job("d", tmp_path, done=fails), Job("e", tmp_path / "e.log", raises)]
    results = world.jobs().run([job("a", tmp_path), job("b", tmp_path), *lost, job("c", tmp_path)])
    told = [(r.job.name, r.state, r.doing, r.code, r.why) for r in results]
    assert told == [
        ("a", "failed", "training", 3, ""),
        ("b", "failed", "table", -9, ""),
        ("d", "failed", "training", 0, "the disk is full"),
        ("e", "failed", "before it began", 0, "its folder holds another run"),
        ("c", "done", "table", 0, ""),
    ]
    assert not {"a_table", "d_table"} & set(world.names)


def test_nothing_is_started_where_nothing_is_missing(tmp_path):
    world = World()
    (result,) = world.jobs().run([job("a", tmp_path, stages=())])
    assert (result.state, world.started) == ("done", [])
    assert world.said == ["[1/1] a: nothing is missing"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_nothing_new_begins(tmp_path, number):
    world = World(a_training=Fake(10**9), b_training=Fake(10**9))
    jobs, before = world.jobs(2), signal.getsignal(number)
    asked = iter(range(3))
    world.fakes["b_training"].poll = lambda poll=world.fakes["b_training"].poll: (
        (next(asked, 1) == 1 and os.kill(os.getpid(), number)) or poll()
    )
    results = jobs.run([job(name, tmp_path) for name in "abc"])
    assert jobs.signal == number
    assert signal.getsignal(number) is before
    assert [(r.job.name, r.state) for r in results] == [("a", "stopped"), ("b", "stopped")]
    assert [world.fakes[f"{name}_training"].signals for name in "ab"] == [[signal.SIGTERM]] * 2
    assert world.names == ["a_training", "b_training"]


def test_a_second_ctrl_c_ends_what_does_not_stop(tmp_path):
    world = World(a_training=Fake(10**9, deaf=True))
    looks = iter(range(10**6))
    fake = world.fakes["a_training"]
    fake.poll = lambda poll=fake.poll: (next(looks) in (2, 6) and os.kill(os.getpid(), signal.SIGINT)) or poll()
    (result,) = world.jobs().run([job("a", tmp_path)])
    assert fake.signals == [signal.SIGTERM, signal.SIGKILL]
    assert (result.state, result.code) == ("stopped", -9)


def test_a_command_that_ends_well_after_the_signal_stops_before_the_next(tmp_path):
    world = World(a_training=Fake(3, deaf=True))
    jobs = world.jobs()
    fake = world.fakes["a_training"]
    fake.poll = lambda poll=fake.poll: (fake.looks == 2 and os.kill(os.getpid(), signal.SIGTERM)) or poll()
    (result,) = jobs.run([job("a", tmp_path)])
    assert (result.state, result.code, world.names) == ("stopped", 0, ["a_training"])


def test_what_runs_tells_its_last_line_once(tmp_path, monkeypatch):
    """And nothing of what an earlier command, or an earlier call, said."""
    monkeypatch.setattr(module, "STATUS_SECONDS", -1)
    log, fake = tmp_path / "a.log", Fake(4)
    log.write_text("2026-01-01 10:00:00 finished\n")
    line = "2026-01-01 10:00:01 step 2/9 \x1b[2J\n\n"
    fake.poll = lambda poll=fake.poll: (fake.looks == 3 and log.write_text(line) == 0) or poll()
    world = World(a_training=fake)
    world.jobs().run([job("a", tmp_path, stages=("training",))])
    assert world.said[0] == "a: training"
    assert world.said[1:-1] == ["a: training: step 2/9 \\u001b[2J"]
    assert world.said[-1].startswith("[1/1] a: done after 0:00:0")


def test_places():
    assert places(1, []) == [{"LOCAL_WORLD_SIZE": "1"}]
    assert places(2, []) == [{"LOCAL_WORLD_SIZE": "2"}] * 2
    assert places(2, ["0", "3"]) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}]
    assert [p["CUDA_VISIBLE_DEVICES"] for p in places(3, ["0", "GPU-1"])] == ["0", "GPU-1", "0"]
    assert places(1, ["0", "1"]) == [{"CUDA_VISIBLE_DEVICES": "0"}]


def test_a_process_writes_to_its_log_and_goes_on_with_it(tmp_path):
    log = tmp_path / "logs" / "a.log"
    for words, expected in ((["--version"], 0), (["--no-such"], 2)):
        assert start_process(words, {"PLACE": "x"}, log).wait(timeout=300) == expected
    first, *_, last = tail(log, 5)
    assert first.startswith("ddpm-ip ")
    assert "--no-such" in last or "COMMAND" in last
    assert tail(tmp_path / "none", 3) == []


def test_a_process_ends_with_the_sweep_however_that_ends():
    code = "import time; from ddpm_ip.sweep.child import watch; watch(); print('on', flush=True); time.sleep(300)"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=300) == -signal.SIGTERM


def test_the_time_that_is_left_is_that_of_the_mean():
    jobs = World().jobs(2)
    assert jobs._left(60.0, 6) == "; about 0:02:30 left, if the rest take as long"
    assert jobs._left(120.0, 2) == "; about 0:01:30 left, if the rest take as long"
    assert jobs._left(120.0, 1) == ""
