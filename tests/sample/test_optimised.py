"""The command that finds times: beside the weights, or in a file, or a sentence why not."""

import json
import shutil
from pathlib import Path

import pytest
from tests.tiny import contents, tiny

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample import optimised
from ddpm_ip.sample.filled import filled, optimised_times


@pytest.fixture
def weights(trained, tmp_path, monkeypatch):
    """A run that may be written to; the teacher takes few steps."""
    monkeypatch.setattr(optimised, "POINTS", 9)
    return shutil.copytree(trained, tmp_path / "run")


def times(weights, *more):
    return main(["times", "--weights", str(weights), "--n", "3", "--batch_size", "2", *more])


def store_of(weights) -> Measured:
    found = find_weights(weights)
    return Measured.of(found.sha256, Path(found.origin))


def test_times_are_kept_and_printed(weights, capsys):
    assert times(weights, "--steps", "3", "5", "--seed", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    store = store_of(weights)
    for steps, line in zip((3, 5), lines, strict=True):
        there = json.loads(store.file(f"times-{steps}").read_text())
        assert line == f"{steps} steps: " + " ".join(f"{t:g}" if t.is_integer() else f"{t:.4f}" for t in there["times"])
        assert (len(there["times"]), there["times"][0]) == (steps, 999.0)
        found = optimised_times(steps, store, tiny().diffusion.schedule)
        assert found == tuple(there["times"])
        settings = there["settings"]
        assert settings["teacher"]["sampler"] == {"name": "ipndm", "order": 4}  # as published
        assert (settings["n"], settings["teacher"]["seed"], settings["c"]) == (3, 4, 1.15)


def test_the_same_call_finds_the_same_times(weights, tmp_path):
    """In whatever blocks, and into a file of one's own."""
    given = ["--steps", "4", "--sampler", "ddim", "--clip", "none"]
    found = []
    for name, more in (("a", []), ("b", []), ("c", ["--batch_size=3"])):
        out = tmp_path / f"{name}.json"
        command = ["times", "--weights", str(weights), "--n", "3", *given, "-o", str(out)]
        assert main([*command, *(more or ["--batch_size", "2"])]) == 0
        found.append(json.loads(out.read_text())["times"])
    assert found[0] == found[1] == found[2]
    assert found[0].keys() == {"4"}
    assert not (weights / "measured").exists()


def test_whole_times(weights, tmp_path):
    assert times(weights, "--steps", "4", "--whole", "-o", str(tmp_path / "t.json")) == 0
    assert all(t.is_integer() for t in json.loads((tmp_path / "t.json").read_text())["times"]["4"])


def test_a_sampling_is_filled_in_with_them(weights):
    """Of these weights; what else it says stays."""
    run = ip.load(weights)
    model = run._sampled(run.config.sampling)
    wanted = ip.Sampling(ip.DDIM(), steps=3, spacing="optimised")
    with pytest.raises(ip.UserError, match=r"no times for 3 steps .*ddpm-ip times --weights \.\.\. --steps 3"):
        filled(wanted, run.config, store_of(weights), model)
    assert times(weights, "--steps", "3") == 0
    found = filled(wanted, run.config, store_of(weights), model)
    assert found.spacing == optimised_times(3, store_of(weights), run.schedule)
    assert (found.sampler, found.steps) == (wanted.sampler, 3)


def test_images_along_them(weights, tmp_path, capsys):
    """By the command; what the images say is the times, so that they can be made again without the store."""
    given = ["--n_samples", "2", "--batch_size", "2", "--sampler", "ddim", "--weights", str(weights)]
    wanted = [*given, "--spacing", "optimised", "--steps", "3", "--save_dir"]
    assert main(["sample", *wanted, str(tmp_path / "a")]) == 2
    assert "`ddpm-ip times --weights ... --steps 3`" in capsys.readouterr().err
    assert times(weights, "--steps", "3", "2") == 0
    assert main(["sample", *wanted, str(tmp_path / "a")]) == 0
    facts = json.loads((tmp_path / "a" / "sampling.json").read_text())
    assert facts["evaluations"] == 3
    assert json.loads(facts["spacing"]) == list(optimised_times(3, store_of(weights), tiny().diffusion.schedule))
    again = ["sample", *given, "--spacing", facts["spacing"], "--save_dir", str(tmp_path / "b")]
    assert main(again) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert ip.load(weights).sample(2, sampler=ip.DDIM(), steps=3, spacing="optimised", block=2).evaluations == 3


def test_the_table_along_them(weights, capsys):
    """Times that were found in another way begin another table."""
    command = ["table", "-e", str(weights), "--extractor", "pixels", "--sampler", "ddim", "--steps", "3", "2"]
    command += ["--n_samples", "4", "--batch_size", "4", "--spacing", "optimised"]
    assert main(command) == 2
    assert "ddpm-ip times" in capsys.readouterr().err
    for more in ([], ["--seed", "1"]):
        assert times(weights, "--steps", "3", "2", *more) == 0
        assert main(command) == 0
    protocols = [json.loads(p.read_text()) for p in (weights / "table").glob("*/protocol.json")]
    assert len({protocol["spacing"] for protocol in protocols}) == 2
    assert all(protocol["spacing"].startswith("optimised, sha256:") for protocol in protocols)
    assert len(list((weights / "table").glob("*/cell-*.json"))) == 4


def test_training_refuses_them_before_the_first_step(tmp_path):
    run = ip.new(tiny(sample_freq=2), tmp_path / "run", sampling=ip.Sampling(ip.DDIM(), spacing="optimised"))
    with pytest.raises(ip.UserError, match=r"during training .*ddpm-ip times"):
        run.train()
    assert not (tmp_path / "run" / "ckpt").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--steps", "3", "--sampler", "ancestral"], "the teacher draws noise"),
        (["--steps", "3", "--sampler", "ddim,eta=1"], "the teacher draws noise"),
        (["--steps", "3", "9"], "--steps 9: the teacher visits 8 times, choose 1..8"),
        (["--steps", "0"], "at least 1"),
        (["--steps", "3", "--n", "0"], "--n must be at least 1"),
        (["--steps", "3", "--sampler", "dim"], "did you mean ddim"),
        (["--steps", "3", "--stpes", "3"], "did you mean --steps"),
    ],
)
def test_what_cannot_be_found_is_said_and_nothing_is_left(weights, capsys, given, words):
    assert main(["times", "--weights", str(weights), "--batch_size", "2", *given]) == 2
    assert words in capsys.readouterr().err
    assert not list(weights.glob("measured/*/*"))


def test_a_place_that_cannot_be_written_is_said_before_the_work(weights, capsys, monkeypatch):
    (weights / "measured").write_text("")
    monkeypatch.setattr(optimised, "load_model", lambda *args: pytest.fail("the work had begun"))
    assert times(weights, "--steps", "3") == 2
    assert "measured" in capsys.readouterr().err


def test_a_network_with_a_learned_variance(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(optimised, "POINTS", 9)
    ip.new(tiny(n_steps=1, save_freq=1), tmp_path / "run", diffusion={"var_type": "learned_range"}).train()
    assert times(tmp_path / "run", "--steps", "2") == 0
    assert capsys.readouterr().out.startswith("2 steps: 999 ")
