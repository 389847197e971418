"""What a callback is told, and what it can do: stop a run, or fail, and neither harms it."""

import json

import pytest
from tests.tiny import assert_same_state, numbers, one_thread, steps_saved, tiny, tree, two_processes

import ddpm_ip as ip
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.train.callback import calling
from ddpm_ip.train.loop import train

SETTINGS = {"n_steps": 4, "save_freq": 100}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    one_thread(monkeypatch)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The folder of the same run without a callback."""
    folder = tmp_path_factory.mktemp("callback") / "straight"
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        train(tiny(**SETTINGS), folder)
    return folder


def test_it_sees_each_log_line_and_changes_nothing(straight, tmp_path):
    seen, grids = [], []

    def look(progress):
        seen.append(progress)
        grids.append(progress.grid)

    settings = {**SETTINGS, "print_freq": 3, "sample_freq": 2, "sample_steps": 1, "n_samples": 1}
    settings |= {"eval": {"every": 2, "n_samples": 10, "steps": 1, "metrics": ["fid"]}}
    run = ip.new(tree(**settings), tmp_path / "seen").train(callback=look)
    for name in ("model", "ema", "optimizer"):
        assert (straight / f"ckpt/step00000004/{name}.safetensors").read_bytes() == (
            run.folder / f"ckpt/step00000004/{name}.safetensors"
        ).read_bytes()
    assert [(p.step, p.n_steps, p.folder, p.stopping) for p in seen] == [(s, 4, run.folder, False) for s in (3, 4)]
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": p.step, **p.numbers} for p in seen] == lines
    assert seen[0].loss == lines[0]["loss"]
    written = [json.loads(line) for line in (run.folder / "evaluations.jsonl").read_text().splitlines()]
    assert seen[0].evaluations == {line["step"]: line["values"] for line in written}
    assert len(written) == 2
    assert grids == [run.folder / "samples/step00000002.png"] * 2, "that of step 4 is made after its log line"


def test_it_stops_a_run_or_fails_which_continues_as_if_nothing_had_been(straight, tmp_path):
    def fails(progress):
        raise ZeroDivisionError("of my own")

    run = ip.new(tree(**SETTINGS), tmp_path / "run").train(callback=lambda p: p.stop() if p.step == 2 else None)
    assert (run.step, steps_saved(run.folder)) == (2, [2])
    with pytest.raises(ZeroDivisionError, match="of my own"):
        run.train(callback=fails)
    assert (run.step, steps_saved(run.folder)) == (3, [2, 3])
    assert run.train(callback=lambda p: p.stop()).step == 4
    said = (run.folder / "log.txt").read_text()
    assert said.count("stopped by the callback at step 2") == said.count("stopped by the callback") - 1 == 1
    assert "the callback failed at step 3 (ZeroDivisionError: of my own): training ends here" in said
    assert "finished: 4 steps" in said, "there was nothing left to stop"
    assert_same_state(run.folder, straight, 4)
    assert numbers(run.folder) == numbers(straight)
    with pytest.raises(ConfigError, match="callback must be a function of a Progress, not list"):
        run.train(callback=[fails])


def test_with_two_processes_the_main_one_is_asked_and_both_hear_it(tmp_path):
    def stops(progress):
        (tmp_path / f"asked{progress.step}").touch(exist_ok=False)
        if progress.step == 2:
            progress.stop()

    def fails(progress):
        raise KeyError("of my own")

    def both():
        assert train(tiny(**SETTINGS), tmp_path / "stops", hooks=calling(stops)).step == 2
        ended = train(tiny(**SETTINGS), tmp_path / "fails", hooks=calling(fails))
        assert ended.step == 1
        assert isinstance(ended.error, KeyError | UserError)
        assert "of my own" in str(ended.error)

    assert two_processes(both) == [0, 0]
    assert steps_saved(tmp_path / "stops") == [2]
    assert steps_saved(tmp_path / "fails") == [1]
