"""Evaluation during training: its numbers, the best weights, the warning, resuming, several processes."""

import json
import logging

import pytest
import torch
from tests.tiny import assert_same_state, command_of_two, tiny, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.evaluate.during import Judge
from ddpm_ip.report.page import write_report
from ddpm_ip.report.run import Run
from ddpm_ip.report.training import series_of
from ddpm_ip.run import checkpoint
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample.generator import Model
from ddpm_ip.train.loop import Hooks, train
from ddpm_ip.train.monitor import Watch

EVAL = {"every": 2, "n_samples": 20, "steps": 3}
RUN = {"n_steps": 6, "save_freq": 2, "optim": {"lr": 1e-2}, "ema_decay": 0.5}


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))


def lines(run):
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def values(run):
    return [(line["step"], line["values"]["FD-pixels"]) for line in lines(run)]


def judged(run, hooks=None, resume=None, **changes):
    train(tiny(**{**RUN, "eval": EVAL, **changes}), run, resume, hooks or Hooks())
    return run


def test_numbers_come_at_their_steps_and_with_their_protocol(tmp_path):
    run = judged(tmp_path / "run")
    assert [step for step, _ in values(run)] == [2, 4, 6]
    assert len({value for _, value in values(run)}) == 3
    protocol = lines(run)[0]["protocol"]
    assert "20" in protocol["line"]
    assert "FD-pixels" in (run / "log.txt").read_text()


def test_a_value_is_that_of_the_averaged_weights(tmp_path):
    """Measured again from the checkpoint of that step."""
    run = judged(tmp_path / "run", keep_last=3)
    config = tiny(**RUN, eval=EVAL)
    network = config.build_network().eval()
    network.load_state_dict(find_weights(run / "ckpt" / "step00000004").tensors)
    from ddpm_ip.engine import start_engine

    again = Judge(config, config.data.open(progress=False), Model(config, network, start_engine(None)))()
    assert again is not None
    assert again().values["FD-pixels"] == pytest.approx(values(run)[1][1], rel=1e-9)


def test_the_best_weights_are_kept_and_can_be_sampled_from(tmp_path):
    run = judged(tmp_path / "run", keep_last=3)
    best_step, _ = min(values(run), key=lambda pair: pair[1])
    found = checkpoint.find(run / "best")
    assert found.step == best_step
    assert len(list((run / "best").glob("step*"))) == 1
    ema = find_weights(run / "best").tensors
    assert all(torch.equal(v, ema[k]) for k, v in find_weights(run / "ckpt" / f"step{best_step:08d}").tensors.items())


def test_training_is_not_disturbed(tmp_path):
    """Nor by what is worked out meanwhile: every tensor is the same to the last bit."""
    judged(tmp_path / "judged", eval={**EVAL, "metrics": ["mind", "fid", "kid", "prc"]}, n_steps=12)
    train(tiny(**{**RUN, "n_steps": 12}), tmp_path / "plain")
    assert_same_state(tmp_path / "judged", tmp_path / "plain", 12)


def test_a_run_that_goes_on_measures_what_the_straight_one_does(tmp_path):
    class Crash(Exception):
        pass

    def crash(step):
        if step == 5:
            raise Crash

    straight = judged(tmp_path / "straight")
    with pytest.raises(Crash):
        judged(tmp_path / "run", Hooks(on_step=crash))
    assert values(judged(tmp_path / "run", resume="latest")) == values(straight)


def test_two_processes_share_the_samples(tmp_path, monkeypatch):
    run = judged(tmp_path / "one", optim={"lr": 1e-9})  # the weights hardly move, so both runs judge the same ones
    given = ["-c", yaml_file(tmp_path, **{**RUN, "eval": EVAL, "optim": {"lr": 1e-9}}), "-e", tmp_path / "two"]
    assert command_of_two("train", *given) == [0, 0]
    for (_, a), (_, b) in zip(values(run), values(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_the_metric_that_is_named_first_decides(tmp_path):
    run = judged(tmp_path / "run", eval={**EVAL, "metrics": ["kid", "fid"]})
    assert next(iter(lines(run)[0]["values"])) == "KD-pixels"


def test_a_metric_more_is_no_other_curve(tmp_path):
    run = judged(tmp_path / "run")
    for n, metrics in ((8, ["fid", "kid"]), (10, ["fid"])):
        judged(run, resume="latest", n_steps=n, eval={**EVAL, "metrics": metrics})
    assert len({line["curve"] for line in lines(run)}) == 1
    assert not list((run / "best").glob("superseded-*"))
    judged(run, resume="latest", n_steps=12, eval={**EVAL, "metrics": ["kid", "fid"]})
    assert len({line["curve"] for line in lines(run)}) == 2
    assert len(list((run / "best").glob("superseded-*"))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["isc"]}, "gives pool; what is asked for needs logits"),
        ({"metrics": ["prc"], "n_samples": 3}, "prc needs at least 4 images, and there are 3"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_first_step(tmp_path, change, message):
    def stepped(step):
        pytest.fail("a step was taken")

    with pytest.raises(ConfigError, match=message):
        judged(tmp_path / "run", Hooks(on_step=stepped), eval={**EVAL, **change})


def test_the_report_shows_the_curve(tmp_path):
    run = judged(tmp_path / "run")
    steps, found = series_of(Run.load(run), "FD-pixels")
    assert list(zip(steps.tolist(), found.tolist(), strict=True)) == values(run)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert page.count("FD-pixels over training steps") == 1
    assert "20 images 1 x 8 x 8" in page
    assert "Warning: 20 images are too few for 64 features" in page


def test_curves_of_two_protocols_share_no_plot(tmp_path):
    runs = [judged(tmp_path / str(n), eval={**EVAL, "n_samples": n}) for n in (20, 24)]
    page = write_report(runs, tmp_path / "report.html").read_text()
    assert page.count("FD-pixels over training steps") == 2
    again = write_report([runs[0], judged(tmp_path / "same")], tmp_path / "report.html").read_text()
    assert again.count("FD-pixels over training steps") == 1


def note(watch, numbers, name="FD-pixels", saved=None):
    for step, number in enumerate(numbers, 1):
        found = {"values": {name: number}, "protocol": {}, "warnings": []}
        watch.note(step, found, lambda step=step: saved is None or not saved.append(step))


def test_a_curve_that_turns_up_is_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ddpm_ip"), "propagate", True)
    note(Watch(RunFolder(tmp_path), 0), [5, 4, 6, 5, 7, 8])
    assert "in a row" not in caplog.text
    note(Watch(RunFolder(tmp_path), 6), [9])
    assert "FD-pixels has become worse 3 evaluations in a row" in caplog.text


@pytest.mark.parametrize(
    ("name", "best"), [("FD-pixels", [1, 2, 4]), ("FID", [1, 2, 4]), ("IS", [1, 3]), ("CS-x", [1, 3])]
)
def test_what_is_best_depends_on_the_metric(tmp_path, name, best):
    saved = []
    note(Watch(RunFolder(tmp_path), 0), [5, 4, 6, 3], name, saved)
    assert saved == best


def test_mistakes_are_told_before_the_first_step(tmp_path, capsys):
    with pytest.raises(UserError):
        judged(tmp_path / "b", eval={**EVAL, "extractor": "no-such"})
    assert not (tmp_path / "b" / "ckpt").exists()
    command = ["train", "-c", str(yaml_file(tmp_path)), "-e", str(tmp_path / "c"), "--train.eval.metrics", "[fdi]"]
    assert main(command) == 2
    assert "train.eval.metrics" in capsys.readouterr().err
