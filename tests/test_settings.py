"""Continuing is continuing the same run: where the settings come from, what may change, and what is told of it."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from tests.tiny import (
    alone,
    assert_same_state,
    contents,
    meta,
    run,
    steps_saved,
    tiny,
    two_processes,
    yaml_file,
)

from ddpm_ip.cli import main
from ddpm_ip.data.folder import Folder
from ddpm_ip.errors import ConfigError
from ddpm_ip.files import read_json, read_yaml
from ddpm_ip.perturbation import InputPerturbation
from ddpm_ip.settings import KINDS, Wanted, changes, keys, kind
from ddpm_ip.train import loop
from ddpm_ip.train.loop import Hooks

LEGACY = Path(__file__).parent / "legacy/v0.1/run"


@pytest.mark.parametrize("key", keys())
def test_every_key_is_of_a_kind(key):
    assert kind(key) in KINDS


def test_every_entry_is_a_key_or_a_section():
    known = set(keys())
    entries = [entry for entries in KINDS.values() for entry in entries]
    assert [e for e in entries if not any(key == e or key.startswith(f"{e}.") for key in known)] == []
    assert len(entries) == len(set(entries))
    assert {"train.n_steps", "perturbation.name", "perturbation.gamma", "sampling.sampler.eta", "data.root"} <= known


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("train.n_steps", "free"),
        ("train.save_freq", "free"),
        ("train.eval.every", "free"),
        ("sampling.steps", "free"),
        ("data.root", "free"),
        ("train.optim.lr", "noted"),
        ("train.batch_size", "noted"),
        ("train.micro_batch", "noted"),
        ("train.mixed_precision", "noted"),
        ("train.fast", "noted"),
        ("train.deterministic", "noted"),
        ("seed", "noted"),
        ("model.dropout", "noted"),
        ("perturbation.name", "method"),
        ("perturbation.gamma", "method"),
        ("diffusion.objective", "method"),
        ("diffusion.total_steps", "method"),
        ("model.dim", "method"),
        ("data.name", "method"),
        ("data.image_size", "method"),
        ("train.ema_decay", "method"),
        ("train.weighting.name", "method"),
        ("train.times.name", "method"),
    ],
)
def test_the_kinds_are_those_of_the_documentation(key, expected):
    assert kind(key) == expected


@pytest.fixture
def begun(tmp_path):
    """A run of gamma 0.15 by the command, its option not in the file, stopped after 2 of 4 steps."""
    config, folder = yaml_file(tmp_path, n_steps=4), tmp_path / "run"
    assert train(config, folder, "--train.n_steps", "2", "--perturbation.gamma", "0.15") == 0
    return config, folder


def train(config, folder, *more):
    return main(["train", *(() if config is None else ("-c", str(config))), "-e", str(folder), *more])


def test_a_run_needs_no_configuration_and_keeps_its_own(begun, tmp_path):
    config, folder = begun
    assert train(None, folder, "-r", "latest", "--train.n_steps", "4") == 0
    assert train(config, tmp_path / "straight", "--perturbation.gamma", "0.15") == 0
    assert_same_state(folder, tmp_path / "straight", 4)
    assert read_yaml(folder / "config.yaml") == read_yaml(tmp_path / "straight" / "config.yaml")
    assert meta(folder, 4)["config"]["perturbation"]["gamma"] == 0.15


def test_a_file_that_says_otherwise_is_refused_with_every_difference(begun, capsys):
    config, folder = begun
    before = contents(folder)
    assert train(config, folder, "-r", "latest", "--train.optim.lr", "0.1") == 2
    shown = capsys.readouterr().err
    assert "perturbation.gamma: the run has 0.15, " in shown
    assert "train.n_steps: the run has 2, " in shown
    assert "gives 0.1\n" in shown
    assert "optim" not in shown.replace("options", ""), "what an option gives is meant"
    assert "Leave -c out" in shown
    assert contents(folder) == before


def test_the_same_command_once_more_continues(begun):
    """As a queue gives it after a pre-emption."""
    config, folder = begun
    same = ("--train.n_steps", "2", "--perturbation.gamma", "0.15")
    assert train(config, folder, "-r", "latest", *same) == 0
    assert train(config, folder, "-r", "latest", "--train.n_steps", "3", *same[2:]) == 0
    assert steps_saved(folder) == [2, 3]
    assert meta(folder, 3)["history"] == [{"step": 2, "changes": ["train.n_steps: 2 -> 3"]}]


def test_what_is_noted_changes_and_stands_in_log_and_history(begun):
    _, folder = begun
    more = ("--train.n_steps", "4", "--train.optim.lr", "0.001", "--train.micro_batch", "4", "--train.batch_size", "16")
    assert train(None, folder, "-r", "latest", *more) == 0
    expected = ["train.batch_size: 8 -> 16", "train.micro_batch: 0 -> 4", "train.n_steps: 2 -> 4"]
    expected += ["train.optim.lr: 0.0002 -> 0.001"]
    assert meta(folder, 4)["history"] == [{"step": 2, "changes": expected}]
    assert read_json(folder / "provenance.json")["history"] == [{"step": 2, "changes": expected}]
    text = (folder / "log.txt").read_text()
    assert all(f"continuing with a changed setting, {line}" in text for line in expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--perturbation.gamma", "0.3"], "perturbation.gamma: the run has 0.15, asked for is 0.3"),
        (["--perturbation.name", "none"], "perturbation.name: the run has 'input', asked for is 'none'"),
        (["--diffusion.objective", "pred_v"], "diffusion.objective: the run has 'pred_eps', asked for is 'pred_v'"),
        (["--model.dim", "16"], "model.dim: the run has 8, asked for is 16"),
        (["--data.image_size", "16"], "data.image_size: the run has 8, asked for is 16"),
        (["--train.ema_decay", "0.5"], "train.ema_decay: the run has 0.9, asked for is 0.5"),
        (["--train.weighting.name", "snr"], "train.weighting"),
    ],
)
def test_another_method_is_refused_and_nothing_is_touched(begun, capsys, options, said):
    _, folder = begun
    before = contents(folder)
    assert train(None, folder, "-r", "latest", "--train.n_steps", "4", *options) == 2
    assert said in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("named", ["perturbation.gamma", "perturbation", "perturbation.name"])
def test_another_method_is_taken_where_it_is_named_and_told_for_good(begun, named):
    _, folder = begun
    new = ("--change", named, "--perturbation.gamma", "0.3")
    assert train(None, folder, "-r", "latest", "--train.n_steps", "4", *new) == 0
    changed = {"step": 2, "changes": ["perturbation.gamma: 0.15 -> 0.3", "train.n_steps: 2 -> 4"]}
    assert meta(folder, 4)["history"] == [changed]
    assert read_yaml(folder / "config.yaml")["perturbation"]["gamma"] == 0.3
    # The same words once more, as a queue gives them, and then without: it is the run's own setting now.
    assert train(None, folder, "-r", "latest", "--train.n_steps", "5", *new) == 0
    assert train(None, folder, "-r", "latest", "--train.n_steps", "6") == 0
    later = [{"step": s, "changes": [f"train.n_steps: {s} -> {s + 1}"]} for s in (4, 5)]
    assert meta(folder, 6)["history"] == [changed, *later]


def test_change_names_what_there_is_and_is_for_continuing(begun, capsys):
    config, folder = begun
    assert train(None, folder, "-r", "latest", "--change", "perturbation.gama") == 2
    assert "--change perturbation.gama" in capsys.readouterr().err
    assert train(config, folder.with_name("new"), "--change", "perturbation") == 2
    assert "-r latest" in capsys.readouterr().err
    assert not folder.with_name("new").exists()


def test_naming_one_key_does_not_allow_another(begun, capsys):
    _, folder = begun
    new = ("--change", "perturbation.gamma", "--perturbation.gamma", "0.3", "--train.ema_decay", "0.5")
    assert train(None, folder, "-r", "latest", "--train.n_steps", "4", *new) == 2
    shown = capsys.readouterr().err
    assert "train.ema_decay" in shown
    assert "perturbation.gamma:" not in shown


def test_latest_begins_a_run_where_there_is_none(tmp_path, capsys):
    config = yaml_file(tmp_path, n_steps=1)
    assert train(config, tmp_path / "run", "-r", "latest") == 0
    assert steps_saved(tmp_path / "run") == [1]
    assert train(None, tmp_path / "other", "-r", "latest") == 2
    assert "give a configuration with -c" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_run_killed_before_its_first_checkpoint_has_its_settings_in_its_folder(tmp_path, capsys):
    def fail(step):
        if step == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    config = dataclasses.replace(tiny(n_steps=4, save_freq=4), perturbation=InputPerturbation(0.3))
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, hooks=Hooks(on_step=fail))
    assert steps_saved(folder) == []
    assert train(yaml_file(tmp_path, n_steps=4, save_freq=4), folder, "-r", "latest") == 2
    assert "perturbation.gamma: the run has 0.3, " in capsys.readouterr().err
    assert train(None, folder, "-r", "latest") == 0
    assert meta(folder, 4)["config"]["perturbation"]["gamma"] == 0.3


def test_a_start_that_takes_no_step_changes_nothing_that_the_run_says(begun, monkeypatch):
    config, folder = begun
    said = {name: (folder / name).read_bytes() for name in ("config.yaml", "provenance.json")}
    new = ("--train.optim.lr", "0.1", "--change", "perturbation", "--perturbation.gamma", "0.3")
    assert train(None, folder, "-r", "latest", *new) == 0, "there is nothing to do"
    assert {name: (folder / name).read_bytes() for name in said} == said

    def fail(*args):
        raise ConfigError("no step is possible here")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_step", fail)
        assert train(None, folder, "-r", "latest", "--train.n_steps", "9", *new) == 2
    assert {name: (folder / name).read_bytes() for name in said} == said
    assert meta(folder, 2)["config"]["perturbation"]["gamma"] == 0.15
    del config


def test_an_edited_configuration_in_the_folder_is_not_the_run(begun):
    _, folder = begun
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("gamma: 0.15", "gamma: 0.4"))
    assert train(None, folder, "-r", "latest", "--train.n_steps", "3") == 0
    assert meta(folder, 3)["config"]["perturbation"]["gamma"] == 0.15
    text = (folder / "log.txt").read_text()
    assert "(perturbation.gamma: 0.15 -> 0.4): the settings of the checkpoint are used" in text
    assert "gamma: 0.15" in file.read_text()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 200_000, b"data: digits", b"{}"])
def test_a_damaged_configuration_in_the_folder_stops_nothing(begun, content):
    _, folder = begun
    (folder / "config.yaml").write_bytes(content)
    assert train(None, folder, "-r", "latest", "--train.n_steps", "3") == 0
    assert "gamma: 0.15" in (folder / "config.yaml").read_text()


def test_a_branch_has_the_settings_of_the_checkpoint_that_it_begins_with(begun, tmp_path):
    _, folder = begun
    more = ("--train.n_steps", "3", "--change", "perturbation", "--perturbation.gamma", "0")
    assert train(None, tmp_path / "branch", "-r", str(folder), *more) == 0
    assert read_yaml(tmp_path / "branch/config.yaml")["perturbation"]["gamma"] == 0
    assert meta(tmp_path / "branch", 3)["history"][0]["step"] == 2
    assert read_yaml(folder / "config.yaml")["perturbation"]["gamma"] == 0.15


def test_a_run_of_version_0_1_continues_with_what_it_says_and_else_that_versions_defaults(tmp_path):
    shutil.copytree(LEGACY, tmp_path / "run")
    assert train(None, tmp_path / "run", "-r", "latest", "--train.n_steps", "61") == 0
    (entry,) = meta(tmp_path / "run", 61)["history"]
    assert [c for c in entry["changes"] if not c.startswith("train.n_steps")] == []


def test_how_a_run_computes_is_recorded_and_a_change_of_it_is_told(tmp_path, monkeypatch, capfd):
    config, folder = yaml_file(tmp_path, n_steps=2), tmp_path / "run"

    def told(processes: Callable[[Callable[[], None]], object], *words: object) -> str:
        def call() -> None:
            assert main(["train", "-e", str(folder), *map(str, words)]) == 0

        assert processes(call) in (0, [0, 0])
        return "".join(capfd.readouterr())

    AcceleratorState._reset_state(True)
    output = told(alone, "-c", config)
    computed = {"precision": "no", "processes": 1, "device": "cpu", "step": "plain"}
    assert meta(folder, 2)["computed"] == read_json(folder / "provenance.json")["computed"] == computed
    assert "1 process on " in output
    assert "precision float32" in output

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as Accelerate's default_config.yaml says it
    output = told(two_processes, "-r", "latest", "--train.n_steps", 4)
    assert meta(folder, 4)["computed"] == {**computed, "precision": "bf16", "processes": 2}
    assert "2 processes on " in output
    assert "precision bf16" in output
    expected = ["train.n_steps: 2 -> 4", "precision: 'no' -> 'bf16'", "processes: 1 -> 2"]
    assert meta(folder, 4)["history"] == [{"step": 2, "changes": expected}]
    assert all(f"continuing with a changed setting, {line}" in output for line in expected)


def test_a_whole_configuration_is_meant_as_it_is(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    other = dataclasses.replace(tiny(n_steps=3), perturbation=InputPerturbation(0.3))
    with pytest.raises(ConfigError, match=r"--change perturbation\.gamma"):
        run(other, tmp_path, "latest")
    assert run(Wanted(config=other, change=("perturbation",)), tmp_path, "latest").step == 3


def test_where_data_are_may_change():
    old, new = (dataclasses.replace(tiny(), data=Folder(root=root, image_size=8)) for root in ("a", "b"))
    assert [(change.key, change.kind) for change in changes(old.to_dict(), new.to_dict())] == [("data.root", "free")]


THEIRS = ("--train.ip_gamma", "0.15"), ("--perturbation.params.gamma", "0.15")


@pytest.mark.parametrize("words", THEIRS)
def test_an_option_in_other_words_is_given_too(tmp_path, words, capsys):
    config, folder = yaml_file(tmp_path, n_steps=2), tmp_path / "run"
    assert train(config, folder, *words) == 0
    assert train(config, folder, "-r", "latest", "--train.n_steps", "3", *words) == 0
    assert steps_saved(folder) == [2, 3]
    assert train(config, folder, "-r", "latest", "--train.n_steps", "4", words[0], "0.3") == 2
    assert "perturbation.gamma: the run has 0.15, asked for is 0.3" in capsys.readouterr().err


def test_report_table_and_doctor_say_what_the_checkpoint_says(begun, tmp_path, capsys):
    _, folder = begun
    new = ("--change", "perturbation.gamma", "--perturbation.gamma", "0.3", "--train.n_steps", "4")
    assert train(None, folder, "-r", "latest", *new) == 0
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("gamma: 0.3", "gamma: 0.7"))
    capsys.readouterr()

    assert main(["report", str(folder), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "γ = 0.3 (since step 2)" in page
    assert "config.yaml is not what the newest checkpoint was made with (perturbation.gamma)" in page

    given = ("--n_samples", "8", "--steps", "2", "--variance", "fixed_small", "--extractor", "pixels")
    assert main(["table", "-e", str(folder), *given]) == 0
    assert "gamma 0.3 (since step 2)" in capsys.readouterr().out
    assert main(["table", "-e", str(folder), *given, "--perturbation.gamma", "0.7"]) == 2
    assert "perturbation.gamma: trained with 0.3, asked for is 0.7" in capsys.readouterr().err

    main(["doctor", "-e", str(folder)])
    assert "settings changed at step 2: perturbation.gamma: 0.15 -> 0.3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 0, ""),
        (("--diffusion.var_type", "fixed_small"), 0, ""),
        (("--diffusion.total_steps", "500"), 2, "diffusion.total_steps: trained with 1000, asked for is 500"),
        (
            ("--diffusion.objective", "pred_x0"),
            2,
            "diffusion.objective: trained with 'pred_eps', asked for is 'pred_x0'",
        ),
        (("--model.dim", "16"), 2, "model.dim: trained with 8, asked for is 16"),
    ],
)
@pytest.mark.parametrize("with_file", [False, True])
def test_samples_are_of_the_network_and_the_diffusion_that_were_trained(
    begun, tmp_path, capsys, options, code, said, with_file
):
    config, folder = begun
    (folder / "config.yaml").write_text("data: {name: digits}\ndiffusion: {objective: pred_v}\n")
    given = ["--weights", str(folder), "--n_samples", "2", "--save_dir", str(tmp_path / "d"), "--respace_steps", "2"]
    assert main(["sample", *(["-c", str(config)] if with_file else []), *given, *options]) == code
    assert said in capsys.readouterr().err
    assert (tmp_path / "d").exists() == (code == 0)


def test_a_run_is_a_reference(begun, tmp_path, capsys):
    _, folder = begun
    given = ["--weights", str(folder), "--n_samples", "4", "--save_dir", str(tmp_path / "d"), "--respace_steps", "2"]
    assert main(["sample", *given]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "d"), "--reference", str(folder), "--extractor", "pixels"]) == 0
    told = capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "d"), "--reference", "digits", "--extractor", "pixels"]) == 0
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"versions": 3, "earlier": {"earlier": [[]]}}',
        b'{"earlier": 7}',
    ],
)
def test_a_damaged_provenance_is_set_aside_and_the_run_continues(begun, content):
    _, folder = begun
    (folder / "provenance.json").write_bytes(content)
    assert train(None, folder, "-r", "latest", "--train.n_steps", "3") == 0
    assert read_json(folder / "provenance.json")["from_step"] == 2
    aside = list(folder.glob("provenance.json.damaged-*"))
    assert [path.read_bytes() for path in aside] == ([content] if content[:2] != b'{"' else [])


@pytest.mark.parametrize("named", ["perturbation.gamma", "train.ip_gamma", "perturbation", "train.ema_decay"])
def test_a_change_that_no_option_makes_is_told(begun, capsys, named):
    _, folder = begun
    before = contents(folder)
    assert train(None, folder, "-r", "latest", "--train.n_steps", "4", "--change", named) == 2
    assert f"--change {named} allows a change, and no option makes one: add its new value" in capsys.readouterr().err
    assert contents(folder) == before


def test_change_may_be_given_several_times_and_in_their_words(begun):
    _, folder = begun
    words = ("--change", "train.ip_gamma", "--change", "train.ema_gradual")
    new = ("--train.ip_gamma", "0.3", "--train.ema_gradual", "true")
    assert train(None, folder, "-r", "latest", "--train.n_steps", "4", *words, *new) == 0
    assert meta(folder, 4)["config"]["perturbation"]["gamma"] == 0.3
    assert meta(folder, 4)["config"]["train"]["ema_warmup"] is True


@pytest.mark.parametrize("resume", ["newest", "{folder}/ckpt/step00000001"])
def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(begun, capsys, resume):
    _, folder = begun
    named = resume.format(folder=folder)
    assert train(None, folder, "-r", named) == 1
    said = capsys.readouterr().err
    assert f"-r {named}: there is no such checkpoint. {folder / 'ckpt'} has those of step 2" in said


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert train(None, tmp_path / "none", "-r", "latest") == 2
    assert f"{tmp_path / 'none'} holds no run to continue" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
