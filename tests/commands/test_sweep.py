"""The command line of a sweep: options of the table and of exposure as words, and what is not said as before."""

import argparse
import re

import pytest
from tests.tiny import tree, yaml_file

from ddpm_ip.commands import sweep as command
from ddpm_ip.commands import table
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import write_json
from ddpm_ip.parser import Parser
from ddpm_ip.sweep.jobs import gpus
from ddpm_ip.sweep.plan import Asked

TABLE = [
    "--variance",
    "fixed_small",
    "--sampler",
    "ddim,eta=0",
    "heun",
    "--corrections",
    "none",
    "tsr",
    "--steps",
    "4",
    "ddim2",
]
TABLE += ["--spacing", "quad", "--n_samples", "16", "--extractor", "pixels", "--metrics", "fid,kid", "--afs"]
TABLE += ["--denoise_to_zero", "false", "--class", "none", "--batch_size", "8", "--keep_images", "--clip", "none"]


def parsed(*words) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(epilog="overrides", allow_abbrev=False)
    command.arguments(parser)
    return parser.parse_known_args([str(word) for word in words])


def test_the_options_of_the_table_reach_it_as_they_were_given():
    args, rest = parsed(
        "-e", "S", "--over", "perturbation.gamma=0,0.1", *TABLE, "--sampling_seeds", 3, 4, "--train.n_steps", 2
    )
    assert rest == ["--train.n_steps", "2"]
    words = command.table_words(args)
    direct = Parser(allow_abbrev=False)
    table.add_measuring(direct, n_samples=50_000)
    assert direct.parse_args(words) == direct.parse_args([*TABLE, "--seeds", "3", "4"])
    assert command.table_words(parsed("-e", "S")[0]) == []


def test_every_option_of_the_table_is_one_of_the_sweep():
    both = [Parser(allow_abbrev=False), Parser(allow_abbrev=False)]
    table.add_measuring(both[0], n_samples=1)
    command.arguments(both[1])
    one, two = ({word for action in parser._actions for word in action.option_strings} for parser in both)
    assert one <= two


def test_a_table_is_checked_as_it_will_be_made():
    config = from_dict(tree())
    words = ["--sampler", "ddim", "heun", "--steps", "2", "4", "--n_samples", "16", "--extractor", "pixels"]
    assert command.check_measuring(config, Asked({}, "", table=words), False) == 4
    with pytest.raises(ConfigError, match="eta"):
        command.check_measuring(config, Asked({}, "", table=["--sampler", "ddim,eto=1", *words[3:]]), False)


@pytest.mark.parametrize(("row", "cure"), [("ddim+auto", "calibrate"), ("ddim@optimised", "times")])
def test_what_is_measured_of_weights_is_no_row_before_there_are_any(row, cure):
    wanted = Asked({}, "", table=["--rows", row, "ddim", "--steps", "2", "--n_samples", "16", "--extractor", "pixels"])
    with pytest.raises(ConfigError, match=f"ddpm-ip {cure}"):
        command.check_measuring(from_dict(tree()), wanted, False)
    assert command.check_measuring(from_dict(tree()), wanted, True) == 2


def test_a_sweep_is_read_from_its_options(tmp_path):
    config = yaml_file(tmp_path)
    words = ("-c", config, "-e", tmp_path / "s", "--over", "perturbation.gamma=0,0.1", "--over", "model.dropout=0,0.2")
    found = command.asked(*parsed(*words, "--train.n_steps", 2, "--sampler", "ddim,eta=0.5", "heun"))
    assert [run.name for run in found.runs][:2] == ["gamma=0,dropout=0,seed=0", "gamma=0,dropout=0.2,seed=0"]
    assert len(found.runs) == 12
    assert {run.config.train.n_steps for run in found.runs} == {2}
    assert found.exposure == ["--n", "10000", "--steps", "50", "--sampler", "ddim,eta=0.5"]
    assert command.asked(*parsed(*words, "--no_exposure")).exposure is None
    assert command.asked(*parsed(*words, "--exposure", 20, "--exposure_steps", 9)).exposure == [
        "--n",
        "20",
        "--steps",
        "9",
    ]


def test_what_is_not_said_is_as_before(tmp_path):
    first = command.asked(*parsed("-c", yaml_file(tmp_path), "-e", tmp_path, "--over", "perturbation.gamma=0,0.1",
                                  "--steps", 4, "--train.n_steps", 2))  # fmt: skip
    write_json(tmp_path / "sweep.json", first.to_dict())
    assert command.asked(*parsed("-e", tmp_path)).to_dict() == first.to_dict()
    more = command.asked(*parsed("-e", tmp_path, "--seeds", 0, 1, 2, 3, "--no_exposure", "--steps", 2))
    assert (more.seeds, more.exposure, more.table) == ([0, 1, 2, 3], None, ["--steps", "2"])
    assert more.over == first.over
    wider = command.asked(*parsed("-e", tmp_path, "--over", "perturbation.gamma=0,0.1,0.2"))
    assert [run.config.perturbation.gamma for run in wider.runs[:3]] == [0, 0.1, 0.2]


def test_without_a_configuration_there_must_be_a_sweep(tmp_path):
    with pytest.raises(ConfigError, match="give a configuration with -c"):
        command.asked(*parsed("-e", tmp_path))


def test_no_run_at_a_time_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--jobs 0"):
        command.run(*parsed("-e", tmp_path, "--jobs", 0))


@pytest.mark.parametrize(("words", "there", "count"), [((), 0, 1), ((), 2, 2), ((), 9, 3), (("--jobs", 2), 0, 2),
                                                       (("--jobs", 8), 2, 3)])  # fmt: skip
def test_as_many_runs_at_once_as_there_are_gpus_and_runs(tmp_path, monkeypatch, words, there, count):
    monkeypatch.setattr("ddpm_ip.sweep.jobs.gpus", lambda: list(map(str, range(there))))
    monkeypatch.setattr("ddpm_ip.sweep.program.sweep", lambda wanted, folder, setup: len(setup.places))
    assert command.run(*parsed("-c", yaml_file(tmp_path), "-e", tmp_path / "s", *words)) == count


def test_gpus_are_named_as_the_system_names_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5e,9")
    assert gpus() == ["3", "GPU-5e"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpus() == []


def test_the_help_says_the_defaults():
    parser = Parser(prog="ddpm-ip sweep", allow_abbrev=False)
    command.arguments(parser)
    said = re.sub(r"\s+", " ", parser.format_help())
    assert f"(default: {command.EXPOSED:,})" in said
    assert "(default: 0 1 2)" in said


def test_of_the_table_too_what_is_not_said_is_as_before():
    old = ["--sampler", "ddim", "heun", "--steps", "5", "10", "--extractor", "pixels", "--afs"]
    kept = command.table_as_before
    assert kept(old, []) == old
    assert kept(old, ["--seeds", "0", "1"]) == [*old, "--seeds", "0", "1"]
    assert kept(old, ["--evaluations", "7"]) == [
        "--sampler",
        "ddim",
        "heun",
        "--extractor",
        "pixels",
        "--afs",
        "--evaluations",
        "7",
    ]
    assert kept(old, ["--variance", "fixed_large"])[:3] == ["--steps", "5", "10"]
    assert kept([], ["--steps", "3"]) == ["--steps", "3"]
