"""A sweep as a whole: what is missing is made, once; what fails is told; what was killed goes on."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from tests.tiny import finish, one_thread, run, start, steps_saved, stop_at, tree, wait_for, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.commands.sweep import check_measuring
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import write_json
from ddpm_ip.run.identity import identity
from ddpm_ip.run.lock import Lock
from ddpm_ip.settings import Wanted
from ddpm_ip.sweep import jobs as jobs_module
from ddpm_ip.sweep import program
from ddpm_ip.sweep.plan import Asked, read_asked
from ddpm_ip.sweep.program import Setup, sweep

MEASURED = ["--sampler", "ddim", "--steps", "2", "--n_samples", "16", "--extractor", "pixels", "--batch_size", "16"]
NAMES = ["gamma=0,seed=0", "gamma=0.2,seed=0", "gamma=0,seed=1", "gamma=0.2,seed=1"]
CURVES = dict(zip(NAMES, (0.5, 0.25, 1.0, 0.75), strict=True))


def asked(**changed) -> Asked:
    settings = tree(n_steps=3, save_freq=3, print_freq=3, optim={"lr": 1e-2})
    given = {"over": {"perturbation.gamma": [0, 0.2]}, "seeds": [0, 1], "table": MEASURED, **changed}
    return Asked(settings, "tiny.yaml", **given)


class Ended:
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def send_signal(self, number: int) -> None:
        pass


class World:
    """Commands run in this process, one after the other, but for those that are told to fail."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.codes: dict[tuple[str, str], int] = {}

    def start(self, words, place, log: Path) -> Ended:
        what = (words[0], Path(words[2]).name)
        self.ran.append(what)
        if what in self.codes:
            log.parent.mkdir(exist_ok=True)
            log.write_text(f"{words[0]} begins\nerror: it is broken\n")
            return Ended(self.codes[what])
        if words[0] == "exposure":
            assert words[1] == "--weights"
            curve = {"t": [0, 9], "value": [CURVES[what[1]], 1.0], "se": [0, 0], "low": [0, 0], "high": [0, 0]}
            exposure = {"label": "ddim, 2 steps", "weights": "0", "n": 20, "sampling": {}, "data": {}}
            write_json(Path(words[2]) / "exposure/ddim-2-0.json", {**exposure, "curves": {"delta": curve}})
            return Ended(0)
        if words[0] == "train":
            return Ended(0 if run(Wanted(), Path(words[2]), words[4]).signal is None else 143)
        return Ended(main(words))

    def sweep(self, wanted: Asked, folder: Path) -> int:
        self.ran.clear()
        self.said.clear()
        return sweep(wanted, folder, Setup([{}], check_measuring, self.start, self.said.append))


@pytest.fixture
def world(monkeypatch, capsys):
    one_thread(monkeypatch)
    monkeypatch.setattr(jobs_module, "POLL_SECONDS", 0)
    monkeypatch.setattr(program, "write_report", lambda runs, out, title: out)  # `finished` has the page
    return World()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a sweep, with what was run and said."""
    folder, one = tmp_path_factory.mktemp("sweep") / "sweep", World()
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        assert one.sweep(asked(), folder) == 0
    return folder, one


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "sweep")


def test_every_run_is_trained_measured_and_told(finished):
    folder, one = finished
    assert one.ran == [(command, name) for name in NAMES for command in ("train", "table")]
    assert one.said[0] == (
        "4 runs (2 of perturbation.gamma x 2 seeds), 1 at a time: 12 steps, 96 images, 4 cells of tables. "
        "All runs cost the same: 3 steps of 8 images."
    )
    for name in NAMES:
        own = identity(folder / name)
        assert own.step == 3
        assert f"gamma={own.config['perturbation']['gamma']:g},seed={own.config['seed']}" == name
    values = {}
    for name in NAMES:
        table = json.loads((folder / name / "table/table.json").read_text())
        values[name] = table["blocks"][0]["rows"][0]["cells"][0]["value"]
    lines = (folder / "sweep.csv").read_text().splitlines()
    assert len(lines) == 3
    for line, name in zip(lines[1:], ("gamma=0", "gamma=0.2"), strict=True):
        gamma, metric, row, steps, mean, deviation, seeds, *_ = line.split(",")
        a, b = values[f"{name},seed=0"], values[f"{name},seed=1"]
        assert (f"gamma={gamma}", metric, row, steps, seeds) == (name, "FD-pixels", "ddim", "2", "2")
        assert float(mean) == pytest.approx((a + b) / 2, rel=1e-12)
        assert float(deviation) == pytest.approx(abs(a - b) / 2**0.5, rel=1e-6)
    assert a != b
    page = (folder / "report.html").read_text()
    assert "perturbation.gamma" in page
    assert not (folder / "lock").exists()


def test_the_runs_are_those_of_train(finished, tmp_path, world):
    """To the bit: the same settings in another folder."""
    folder, _ = finished
    again = tmp_path / "again"
    run(Wanted(config=asked().runs[3].config), again)
    name = "ckpt/step00000003/ema.safetensors"
    assert (folder / NAMES[3] / name).read_bytes() == (again / name).read_bytes()


def test_the_same_call_makes_nothing(folder, world):
    assert world.sweep(asked(), folder) == 0
    assert world.ran == []
    assert world.said[1:5] == [f"[{i}/4] {name}: nothing is missing" for i, name in enumerate(NAMES, 1)]


def test_only_what_is_missing_is_made(folder, world):
    (folder / NAMES[0] / "table/table.json").unlink()
    shutil.rmtree(folder / NAMES[1])
    assert world.sweep(asked(), folder) == 0
    assert world.ran == [("table", NAMES[0]), ("train", NAMES[1]), ("table", NAMES[1])]
    assert world.sweep(asked(table=[*MEASURED, "--seeds", "1"]), folder) == 0
    assert world.ran == [("table", name) for name in NAMES]  # another table, and no training


def test_exposure_bias_is_measured_of_each_and_averaged(folder, world):
    wanted = asked(exposure=["--n", "20", "--steps", "2"])
    assert world.sweep(wanted, folder) == 0
    assert world.ran == [("exposure", name) for name in NAMES]
    lines = (folder / "exposure.csv").read_text().splitlines()
    assert lines[0] == "gamma,sampling,images,curve,t,mean,deviation,seeds"
    first, last, *_ = (line.split(",") for line in lines[1:])
    assert first[0] == last[0] == "0"
    assert [float(x) for x in first[-4:]] == [0, 0.75, 0.125**0.5, 2]
    assert [float(x) for x in last[-4:]] == [9, 1.0, 0.0, 2]
    assert world.sweep(wanted, folder) == 0
    assert world.ran == []
    (folder / NAMES[0] / "exposure/ddim-2-0.json").write_text("{}")
    assert world.sweep(wanted, folder) == 0
    assert "holds no curves" in (folder / "sweep.md").read_text()


def test_more_seeds_and_values_continue_and_another_sweep_is_refused(folder, world):
    more = asked(over={"perturbation.gamma": [0, 0.1, 0.2]}, seeds=[0, 1])
    assert world.sweep(more, folder) == 0
    assert [name for command, name in world.ran if command == "train"] == ["gamma=0.1,seed=0", "gamma=0.1,seed=1"]
    asked_for = (folder / "sweep.json").read_bytes()
    with pytest.raises(ConfigError, match=r"gamma=0\.1,seed=0, which is not asked for any more"):
        world.sweep(asked(), folder)
    with pytest.raises(ConfigError, match=r"train\.batch_size: trained with 8, asked for is 4"):
        world.sweep(asked(options={"train.batch_size": 4}), folder)
    assert world.ran == []
    assert (folder / "sweep.json").read_bytes() == asked_for


def test_a_run_that_was_stopped_continues_from_its_checkpoint(folder, world, tmp_path):
    stopped, name = folder / NAMES[0], "ckpt/step00000003/ema.safetensors"
    whole = (stopped / name).read_bytes()
    shutil.rmtree(stopped)
    assert run(Wanted(config=asked().runs[0].config), stopped, hooks=stop_at(2)).step == 2
    assert world.sweep(asked(), folder) == 0
    assert world.ran == [("train", NAMES[0]), ("table", NAMES[0])]
    assert steps_saved(stopped) == [2, 3]
    assert (stopped / name).read_bytes() == whole


def test_a_run_that_fails_is_told_at_the_end_and_the_others_finish(tmp_path, world):
    world.codes = {("train", NAMES[0]): 3, ("table", NAMES[1]): -9}
    assert world.sweep(asked(), tmp_path / "sweep") == 1
    assert ("table", NAMES[0]) not in world.ran
    assert ("table", NAMES[3]) in world.ran
    *_, first, second, last = world.said
    assert "gamma=0,seed=0: training failed with exit code 3" in first
    assert first.endswith("train begins\n  error: it is broken")
    assert "gamma=0.2,seed=0: table was ended by signal 9" in second
    assert last.startswith("2 of 4 runs failed")
    table = (tmp_path / "sweep/sweep.csv").read_text().splitlines()
    assert [line.split(",")[6] for line in table[1:]] == ["1", "1"]
    world.codes.clear()
    assert world.sweep(asked(), tmp_path / "sweep") == 0
    assert world.ran == [("train", NAMES[0]), ("table", NAMES[0]), ("table", NAMES[1])]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"table": ["--extractor", "no_such"]}, "no_such"),
        ({"table": [*MEASURED, "--metrics", "fod"]}, "fod"),
        ({"table": [*MEASURED[:2], "--steps", "5000", *MEASURED[4:]]}, "5000"),
        ({"over": {"model.in_channels": [1, 3]}}, "in_channels"),
        ({"exposure": ["--n", "20", "--steps", "1001"]}, "1001"),
        ({"exposure": ["--n", "20", "--steps", "10", "--rows", "ddimm"]}, "ddimm"),
        ({"exposure": ["--n", "1", "--steps", "10"]}, "--exposure 1 --exposure_steps 10.*at least 10"),
    ],
)
def test_what_cannot_be_is_told_before_anything_begins(tmp_path, world, changed, message):
    with pytest.raises(UserError, match=message):
        world.sweep(asked(**changed), tmp_path / "sweep")
    assert world.ran == []
    assert not (tmp_path / "sweep").exists()


def test_missing_weights_of_inception_are_told_before_anything_begins(tmp_path, world, monkeypatch):
    monkeypatch.setenv("DDPM_IP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"(?i)inception"):
        world.sweep(asked(table=["--n_samples", "16"]), tmp_path / "sweep")
    assert world.ran == []


def test_a_folder_of_something_else_is_refused(tmp_path, world):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no sweep"):
        world.sweep(asked(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_a_run_that_somebody_changed_is_refused(folder, world):
    run(Wanted(options={"train.n_steps": 4}), folder / NAMES[0], "latest")
    with pytest.raises(ConfigError, match=r"train\.n_steps: trained with 4, asked for is 3"):
        world.sweep(asked(), folder)


def test_a_launcher_is_refused(tmp_path, world, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--jobs"):
        world.sweep(asked(), tmp_path / "sweep")


def test_runs_that_are_still_being_saved_are_waited_for(folder, world, monkeypatch):
    held = Lock(folder / NAMES[1] / "lock").__enter__()
    monkeypatch.setattr(program.time, "sleep", lambda seconds: held.__exit__() if held._handle >= 0 else None)
    assert world.sweep(asked(), folder) == 0
    assert "waiting for runs of an earlier call" in "\n".join(world.said)


def test_a_lock_that_is_held_for_long_is_told(folder, world, monkeypatch):
    monkeypatch.setattr(program, "WAIT_SECONDS", -1)
    with Lock(folder / NAMES[1] / "lock"), pytest.raises(ConfigError, match="another folder"):
        world.sweep(asked(), folder)


def appears(log: Path, text: str) -> None:
    """Waits for a text in a log that another process writes."""
    for _ in range(30_000):
        if log.exists() and text in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"{text!r} never came")


def test_a_sweep_that_is_killed_leaves_runs_that_save_and_stop_and_it_continues(tmp_path, world):
    """kill -9, as a user has it: with processes."""
    config = yaml_file(tmp_path, n_steps=100_000, save_freq=100_000, print_freq=1)
    folder = tmp_path / "sweep"
    log = folder / "logs/seed=5.log"
    process = start("-m", "ddpm_ip", "sweep", "-c", config, "-e", folder, "--seeds", "5", "--no_exposure", *MEASURED)
    wait_for(process, "seed=5: training")
    appears(log, "/100000  loss")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    appears(log, "stopped by signal 15")
    (step,) = steps_saved(folder / "seed=5")
    assert f"at step {step}" in log.read_text()
    world.codes = {("train", "seed=5"): 1}
    wanted = read_asked(folder / "sweep.json")
    assert wanted is not None
    assert world.sweep(wanted, folder) == 1
    assert world.ran == [("train", "seed=5")]
