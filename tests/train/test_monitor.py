"""Evaluations that are worked out while training goes on: their order, weights and errors, and how they end."""

import json
import logging
import os
import shutil
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace

import pytest
from tests.tiny import ROOT, tiny, two_processes

from ddpm_ip.errors import DataError
from ddpm_ip.evaluate import during
from ddpm_ip.evaluate.evaluate import Comparison
from ddpm_ip.report.run import Run
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.record import Evaluation, understood
from ddpm_ip.tracking.metrics import Metrics
from ddpm_ip.train.loop import Hooks, train
from ddpm_ip.train.monitor import PENDING, Watch

LIMIT = 300  # seconds after which what should come is taken to hang


class Eager(ThreadPoolExecutor):
    """The fastest of machines: what is submitted is done before training goes on."""

    def submit(self, work):
        future = super().submit(work)
        wait([future], LIMIT)
        return future


class Reluctant(ThreadPoolExecutor):
    """The slowest of machines: nothing is done before somebody waits for it."""

    def submit(self, work):
        asked = threading.Event()

        def when_asked():
            assert asked.wait(LIMIT), "nobody waits"
            return work()

        future = super().submit(when_asked)
        result = future.result
        future.result = lambda: asked.set() or result()
        return future


@pytest.fixture
def machine(monkeypatch):
    """Sets the kind of thread that works out the evaluations."""
    return lambda kind: monkeypatch.setattr("ddpm_ip.train.monitor.ThreadPoolExecutor", kind)


def evaluation(value):
    return Evaluation({"FD-pixels": value}, {"line": ""}, [])


def judge(*conclusions):
    """Judges the first evaluation by the first conclusion, and so on."""
    left = iter(conclusions)
    return lambda config, images, model: lambda: next(left)


def after(event, value):
    """A conclusion that comes only then."""

    def conclude():
        assert event.wait(LIMIT), "training waited for the numbers"
        return evaluation(value)

    return conclude


def at_once(value):
    return lambda: evaluation(value)


def judged(run, make_judge, on_step=lambda step: None, every=2, resume=None, **changes):
    """Trains, with judges made by ``make_judge`` in place of :class:`ddpm_ip.evaluate.during.Judge`."""
    settings = {"n_steps": 6, "save_freq": 2, "keep_last": 9, "optim": {"lr": 1e-2}, "ema_decay": 0.5}
    settings |= {"eval": {"every": every}, **changes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(during, "Judge", make_judge)
        return train(tiny(**settings), run, resume, Hooks(on_step=on_step))


def recorded(run):
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return [(line["step"], line["values"]["FD-pixels"]) for line in lines]


def shown(run):
    """Step and value of TensorBoard's points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return [(point.step, point.value) for point in board.Scalars("eval/FD-pixels")]


def test_training_goes_on_meanwhile_and_the_best_weights_are_those_judged(tmp_path):
    """The numbers of step 2 come at step 5; what is kept then is the checkpoint of step 2, to the last bit."""
    come, seen = threading.Event(), []

    def on_step(step):
        if step == 5:
            seen.extend(tmp_path.glob("run/evaluations.jsonl"))
            come.set()

    judged(tmp_path / "run", judge(after(come, 1.0), at_once(3.0), at_once(2.0)), on_step)
    assert seen == []
    assert recorded(tmp_path / "run") == shown(tmp_path / "run") == [(2, 1.0), (4, 3.0), (6, 2.0)]
    best, then = checkpoint.find(tmp_path / "run" / "best"), tmp_path / "run" / "ckpt" / "step00000002"
    assert best.hashes == checkpoint.read(then).hashes
    assert best.hashes != checkpoint.read(then.with_name("step00000006")).hashes


def test_numbers_are_taken_in_as_soon_as_they_are_there(tmp_path, machine):
    """After the next step, and not only when the run ends or the next evaluation begins."""
    machine(Eager)
    seen = []

    def on_step(step):
        seen.extend(step for _ in tmp_path.glob("run/evaluations.jsonl"))

    judged(tmp_path / "run", judge(at_once(1.0), at_once(2.0)), on_step, every=10, n_steps=20)
    assert seen == list(range(12, 21))
    assert recorded(tmp_path / "run") == [(10, 1.0), (20, 2.0)]


class Steps:
    """What Watch knows of a training state, counting the copies that are held."""

    def __init__(self):
        self.step, self.held, self.most = 0, weakref.WeakSet(), 0

    def snapshot(self):
        copy = type("Copy", (dict,), {"__hash__": object.__hash__})()
        self.held.add(copy)
        self.most = max(self.most, len(self.held))
        return copy, {}


def test_order_is_kept_and_copies_do_not_pile_up(tmp_path, monkeypatch, machine):
    """A third evaluation waits for the first; a copy goes as soon as its weights are known not to be the best."""
    machine(Reluctant)
    saved, steps, measured = [], Steps(), [(1, 5.0), (2, 4.0), (3, 6.0), (4, 3.0)]
    monkeypatch.setattr("ddpm_ip.train.monitor.save_best", lambda folder, step, tensors, meta: not saved.append(step))
    with Watch(RunFolder(tmp_path), 0) as watch:
        for step, value in measured:
            steps.step = step
            watch.make_room()
            watch.begin(steps, at_once(value))
            waited_for = measured[: max(step - PENDING, 0)]
            assert (recorded(tmp_path) if (tmp_path / "evaluations.jsonl").exists() else []) == waited_for
    assert recorded(tmp_path) == measured
    assert saved == [1, 2, 4]
    assert (steps.most, len(steps.held)) == (PENDING, 0)


def test_samples_are_not_made_before_there_is_room_for_another_evaluation(tmp_path, machine):
    """They take memory, too: when the next are made, at most one evaluation has no numbers yet."""
    machine(Reluctant)
    unfinished, most = [], []

    def conclude():
        unfinished.pop()
        return evaluation(1.0)

    def judge_of(config, images, model):
        def judge_one():
            most.append(len(unfinished))
            unfinished.append(model)
            return conclude

        return judge_one

    judged(tmp_path / "run", judge_of, every=1)
    assert most == [min(i, PENDING - 1) for i in range(6)]
    assert len(recorded(tmp_path / "run")) == 6


def test_a_poll_takes_what_is_ready_and_waits_for_nothing(tmp_path):
    come, state = threading.Event(), SimpleNamespace(step=1, snapshot=lambda: ({}, {}))
    with Watch(RunFolder(tmp_path), 0) as watch:
        watch._best = 0.0  # nothing will be the best
        watch.begin(state, after(come, 5.0))
        watch.poll()
        assert not (tmp_path / "evaluations.jsonl").exists()
        come.set()
        ((_, evaluated, _),) = watch._pending
        assert wait([evaluated], LIMIT).done
        watch.poll()
        assert recorded(tmp_path) == [(1, 5.0)]


@pytest.mark.parametrize("error", [DataError("the samples are of no use"), ZeroDivisionError("a bug")])
def test_an_error_of_the_thread_ends_the_run_as_what_it_is(tmp_path, machine, error):
    def fail():
        raise error

    machine(Eager)
    steps = []
    with pytest.raises(type(error)) as caught:
        judged(tmp_path / "run", judge(fail, at_once(1.0)), steps.append, every=10, n_steps=30)
    assert caught.value is error
    assert steps[-1] == 11, "it should be seen at once, and not only by the next evaluation"
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()


class Crash(Exception):
    pass


@pytest.mark.parametrize("end", ["signal", "error"])
def test_what_is_pending_when_the_run_stops_is_not_lost(tmp_path, monkeypatch, end):
    """Two are pending, and come only when the run is about to end."""
    come, leave = threading.Event(), Watch.__exit__
    monkeypatch.setattr(Watch, "__exit__", lambda *given: come.set() or leave(*given))

    def on_step(step):
        if step == 5:
            if end == "error":
                raise Crash
            os.kill(os.getpid(), signal.SIGTERM)

    def go():
        return judged(tmp_path / "run", judge(after(come, 1.0), after(come, 2.0)), on_step, n_steps=100)

    if end == "error":
        with pytest.raises(Crash):
            go()
    else:
        outcome = go()
        assert (outcome.step, outcome.signal) == (5, signal.SIGTERM)
    assert recorded(tmp_path / "run") == [(2, 1.0), (4, 2.0)]
    assert checkpoint.find(tmp_path / "run" / "best").step == 2


def test_a_second_interrupt_gives_up_what_has_not_begun(tmp_path, machine):
    come, begun = threading.Event(), []

    class Late(ThreadPoolExecutor):
        """What has begun ends only once the rest has been given up."""

        def shutdown(self, wait=True, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            come.set()
            super().shutdown(wait=wait)

    machine(Late)

    def on_step(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path / "run", judge(after(come, 1.0), lambda: begun.append(4)), on_step)
    assert come.is_set(), "what had begun is waited for: no thread is left behind"
    assert begun == []
    assert recorded(tmp_path / "run") == [(2, 1.0)]


def test_the_other_process_does_not_wait(tmp_path, monkeypatch):
    """The numbers of step 2 come only once the other process has done step 5."""
    ordinary, folder = Comparison.conclude, tmp_path / "run"

    def conclude(self, device):
        assert os.environ["RANK"] == "0"
        for _ in range(10_000):
            if (tmp_path / "other-at-5").exists():
                return ordinary(self, device)
            time.sleep(0.01)
        raise AssertionError("the other process waited for the numbers")

    def on_step(step):
        if os.environ["RANK"] == "1" and step == 5:
            assert not (folder / "evaluations.jsonl").exists()
            (tmp_path / "other-at-5").touch()

    monkeypatch.setattr(Comparison, "conclude", conclude)
    config = tiny(n_steps=7, save_freq=3, eval={"every": 2, "n_samples": 20, "steps": 3})
    assert two_processes(lambda: train(config, folder, hooks=Hooks(on_step=on_step))) == [0, 0]
    found = recorded(folder)
    assert [step for step, _ in found] == [2, 4, 6, 7]
    assert checkpoint.find(folder / "best").step == min(found, key=lambda pair: pair[1])[0]


@pytest.mark.parametrize("later", [1.5, 2.2])
def test_going_back_before_the_best_sets_it_aside(tmp_path, later):
    """Else the weights of a step that is done again would stay; kept is the best of those whose weights are there."""
    run = tmp_path / "run"
    judged(run, judge(at_once(3.0), at_once(2.0), at_once(1.0)))
    assert checkpoint.find(run / "best").step == 6
    back = str(run / "ckpt" / "step00000004")
    judged(run, judge(at_once(2.5), at_once(later)), resume=back, n_steps=8, optim={"lr": 1e-3})
    assert recorded(run) == [(2, 3.0), (4, 2.0), (6, 2.5), (8, later)]
    assert [path.name for path in sorted((run / "best").iterdir())] == ["step00000008", "superseded-step00000006"]


def test_best_weights_that_could_not_be_written_are_not_taken_for_the_best(tmp_path):
    numbers = [(evaluation(value).to_dict(), saves) for value, saves in ((5.0, True), (3.0, False), (4.0, True))]
    saved = []
    watch = Watch(RunFolder(tmp_path), 0)
    for step, (found, saves) in enumerate(numbers, 1):
        watch.note(step, found, lambda step=step, saves=saves: saved.append(step) or saves)
    assert saved == [1, 2, 3]


def test_a_curve_that_turns_up_is_an_alert_until_it_turns_back(tmp_path):
    """Trackers and the command are told once of each turn."""
    told = SimpleNamespace(told=[], scalars=lambda *_: None, close=lambda: None)
    told.alert = lambda alert: told.told.append((alert.kind, alert.step))
    watch = Watch(RunFolder(tmp_path), 0, Metrics(RunFolder(tmp_path), 0, told))
    for step, value in enumerate((5, 6, 7, 8, 9, 8, 9, 10, 11), 1):
        watch.note(step, evaluation(value).to_dict(), lambda: True)
    assert told.told == [("distance", 4), ("distance", 9)]


@pytest.mark.parametrize("change", [{"n_images": 96}, {"sampling": {"steps": 50}}])
def test_values_of_another_protocol_begin_a_curve_of_their_own(tmp_path, change):
    """Nothing is the best because it was measured otherwise, and nothing is lost."""
    run = tmp_path / "run"
    judged(run, judge(at_once(3.0), at_once(2.0), at_once(4.0)))
    other = lambda value: lambda: Evaluation({"FD-pixels": value}, {"line": "", **change}, [])  # noqa: E731
    judged(run, judge(other(9.0), other(8.0)), resume="latest", n_steps=10)
    assert recorded(run) == [(2, 3.0), (4, 2.0), (6, 4.0), (8, 9.0), (10, 8.0)]
    assert sorted(path.name for path in (run / "best").iterdir()) == ["step00000010", "superseded-step00000004"]
    shown_in_report = [line["step"] for line in Run.load(run).metrics if "FD-pixels" in line]
    assert shown_in_report == [8, 10]


@pytest.mark.parametrize(("images", "kept"), [(20, 2), (96, 4)])
def test_lines_of_an_older_version_have_their_curve_too(tmp_path, images, kept):
    """Whether the run goes on once or twice: better weights are not thrown away, and other protocols do not win."""

    def found(value, n):
        return Evaluation({"FD-x": value}, {"n_images": n}, []).to_dict()

    folder = RunFolder(tmp_path)
    lines = [{"step": step, **found(value, 20)} for step, value in ((1, 3.0), (2, 2.0))]
    folder.evaluations.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder.best / "step00000002").mkdir(parents=True)
    saved = [2]
    for step, value in ((3, 6.0), (4, 5.0)):
        Watch(folder, step - 1).note(step, found(value, images), lambda step=step: saved.append(step) or True)
    assert saved[-1] == kept
    assert (folder.best / "superseded-step00000002").exists() == (images != 20)


def test_a_run_of_version_0_1_continues_its_curve_and_keeps_its_best(tmp_path):
    """The same settings in today's words: 8.305 at step 60 was the best."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(ROOT / "tests/legacy/v0.1/run/evaluations.jsonl", run)
    (run / "best" / "step00000060").mkdir(parents=True)
    old = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    sampling = understood(old["protocol"]["sampling"]) | {"diffusion": {"total_steps": 100}}
    protocol = {**old["protocol"], "sampling": sampling, "versions": {"ddpm-ip": "9"}, "line": "other words"}
    saved = []
    for step, value in ((70, 8.4), (80, 8.3)):
        found = Evaluation({"FD-pixels": value}, protocol, []).to_dict()
        Watch(RunFolder(run), step - 1).note(step, found, lambda step=step: saved.append(step) or True)
    assert saved == [80]
    assert not list((run / "best").glob("superseded*"))
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["curve"] for line in lines] == ["323313f83f04"] * 4
    shutil.copy(ROOT / "tests/legacy/v0.1/run/config.yaml", run)
    assert [line["step"] for line in Run.load(run).evaluations] == [30, 60, 70, 80]
    protocol["sampling"] = {**sampling, "steps": 5}
    found = Evaluation({"FD-pixels": 9.0}, protocol, []).to_dict()
    Watch(RunFolder(run), 80).note(90, found, lambda: True)
    assert [line["step"] for line in Run.load(run).evaluations] == [90]


def test_another_metric_begins_a_curve_and_other_versions_do_not(tmp_path):
    watch = Watch(RunFolder(tmp_path), 0)
    saved = []
    for step, (name, value, version) in enumerate([("KD-x", 0.5, 1), ("KD-x", 0.6, 2), ("FD-x", 8.0, 2)]):
        found = Evaluation({name: value}, {"versions": {"torch": version}}, []).to_dict()
        watch.note(step, found, lambda step=step: saved.append(step) or True)
    assert saved == [0, 2]


def test_what_speaks_against_the_numbers_is_said_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("ddpm_ip.train"), "warning", lambda *message: said.append(message[-1]))
    watch = Watch(RunFolder(tmp_path), 0)
    for step in range(2):
        watch.note(step, Evaluation({"FD-x": 1.0}, {}, ["too few images"]).to_dict(), lambda: True)
    assert said == ["too few images"]


def test_a_run_that_goes_on_knows_what_its_best_is_worth(tmp_path):
    run = tmp_path / "run"
    judged(run, judge(at_once(3.0), at_once(1.0), at_once(2.0)))
    judged(run, judge(at_once(1.5)), resume="latest", n_steps=8)
    assert checkpoint.find(run / "best").step == 4


def without_what_followed(run, step, lines):
    """What a kill after the save of a step leaves: no grid of it, and only so many evaluations."""
    (run / "samples" / f"step{step:08d}.png").unlink()
    path = run / "evaluations.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize("n_steps", [6, 8], ids=["complete", "to be continued"])
def test_a_run_that_goes_on_makes_up_for_what_a_kill_took_away(tmp_path, n_steps):
    """Evaluations with the weights of their own steps, the grid, and the best weights to the last bit."""
    settings = {"save_freq": 2, "sample_freq": 3, "optim": {"lr": 1e-2}, "ema_decay": 0.5}
    settings["eval"] = {"every": 2, "n_samples": 8, "steps": 2}
    run = tmp_path / "run"
    train(tiny(n_steps=6, **settings), run)
    expected, grid = recorded(run), (run / "samples/step00000006.png").read_bytes()
    (best,) = (run / "best").iterdir()
    hashes, state = checkpoint.read(best).hashes, checkpoint.find(run).hashes
    without_what_followed(run, 6, lines=1)
    shutil.rmtree(best)
    (run / "ckpt" / ".tmp-step00000006-1").mkdir()
    for name in (".metrics.jsonl.7.partial", ".config.yaml.7.partial", "samples/.step00000006.png.7.partial"):
        (run / name).touch()
    train(tiny(n_steps=n_steps, **settings), run, "latest")
    assert recorded(run)[:3] == expected
    assert (run / "samples/step00000006.png").read_bytes() == grid
    assert not [*run.rglob(".tmp-*"), *run.rglob("*.partial")]
    assert checkpoint.read(run / "ckpt" / "step00000006").hashes == state
    if n_steps == 6:
        assert checkpoint.read(best).hashes == hashes


def test_what_is_measured_otherwise_from_now_on_is_not_made_up_for(tmp_path):
    judged(tmp_path / "run", judge(at_once(3.0), at_once(2.0), at_once(1.0)), sample_freq=2)
    without_what_followed(tmp_path / "run", 6, lines=2)
    judged(tmp_path / "run", judge(at_once(9.0)), resume="latest", every=4, n_steps=8, sample_freq=2)
    assert recorded(tmp_path / "run") == [(2, 3.0), (4, 2.0), (8, 9.0)]


def test_a_checkpoint_that_is_still_judged_stays(tmp_path):
    """With only two kept, the numbers of step 4 come after step 10 is saved."""
    come, kept = threading.Event(), []

    def on_step(step):
        if step == 11:
            kept.extend(path.name for path in sorted((tmp_path / "run" / "ckpt").iterdir()))
            come.set()

    judged(tmp_path / "run", judge(after(come, 1.0), *map(at_once, (2.0, 3.0))), on_step, every=4, n_steps=12,
           keep_last=2)  # fmt: skip
    assert kept == ["step00000004", "step00000008", "step00000010"]
    assert [path.name for path in sorted((tmp_path / "run" / "ckpt").iterdir())] == ["step00000010", "step00000012"]
