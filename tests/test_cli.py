"""The commands as a person types them."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tests.install.check import COMMANDS
from tests.tiny import ROOT, SAMPLE_SCRIPT, TRAIN_SCRIPT, Forked, finish, start, steps_saved, yaml_file

from ddpm_ip.cli import _COMMANDS, main

LAUNCH = Path(sys.executable).with_name("accelerate-launch")
LEFT = {"config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "ckpt", "samples", "provenance.json"}
SMALL = ["--train.n_steps", 2, "--train.batch_size", 8, "--train.sample_freq", 2, "--train.n_samples", 4]
SMALL += ["--train.sample_steps", 2, "--model.dim", 8, "--model.num_groups", 4]


def test_the_commands_of_the_readme(tmp_path):
    """Training and sampling under accelerate-launch, with the configuration that is shipped."""
    run, images = tmp_path / "run", tmp_path / "images"
    config = ROOT / "configs/ddpm_ip_digits.yaml"
    code, output = finish(start(LAUNCH, TRAIN_SCRIPT, "-c", config, "-e", run, *SMALL))
    assert code == 0, output
    assert {p.name for p in run.iterdir()} == LEFT
    assert all(any(p.rglob("*")) if p.is_dir() else p.stat().st_size for p in run.iterdir())
    assert steps_saved(run) == [2]
    assert json.loads((run / "metrics.jsonl").read_text())["step"] == 2
    given = ["--weights", run, "--n_samples", 3, "--save_dir", images, "--respace_steps", 3, "--batch_size", 2]
    code, output = finish(start(LAUNCH, SAMPLE_SCRIPT, "-c", run / "config.yaml", *given))
    assert code == 0, output
    assert {p.name for p in images.iterdir()} == {"000000.png", "000001.png", "000002.png", "sampling.json", "grid.png"}


def test_the_script_alone_and_the_default_folder(tmp_path):
    code, output = finish(start(TRAIN_SCRIPT, "-c", yaml_file(tmp_path, n_steps=1), cwd=tmp_path))
    assert code == 0, output
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.match("runs/exp-2*")
    assert steps_saved(folder) == [1]


def test_the_command_train(tmp_path):
    command = ["train", "-c", str(yaml_file(tmp_path)), "-e", str(tmp_path / "run"), "--train.n_steps", "2"]
    assert main([*command, "--perturbation.gamma=0.15", "--train.sample_freq", "2"]) == 0
    assert {p.name for p in (tmp_path / "run").iterdir()} == LEFT
    assert "gamma: 0.15" in (tmp_path / "run" / "config.yaml").read_text()
    assert main([*command[:-1], "3", "--perturbation.gamma=0.15", "--train.sample_freq", "2", "-r", "latest"]) == 0
    assert steps_saved(tmp_path / "run") == [2, 3]


def test_the_saved_configuration_repeats_the_run(tmp_path):
    for name, config in (("a", yaml_file(tmp_path, n_steps=2)), ("b", tmp_path / "a" / "config.yaml")):
        assert main(["train", "-c", str(config), "-e", str(tmp_path / name)]) == 0
    assert (tmp_path / "a" / "config.yaml").read_bytes() == (tmp_path / "b" / "config.yaml").read_bytes()
    weights = [(tmp_path / name / "ckpt/step00000002/model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--train.batchsize", "8"], "did you mean batch_size?"),
        (["--trian.batch_size", "8"], "did you mean train?"),
        (["--perturbation.name", "inptu"], "did you mean input?"),
        (["--train.batch_size", "many"], "train.batch_size"),
        (["--train.batch_size"], "--train.batch_size needs a value"),
        (["--train.batch_size", "8", "--train.batch_size", "8"], "given twice"),
        (["stray"], "unexpected argument 'stray'"),
        (["-r", "latest", "--seed", "-1"], "seed"),
    ],
)
def test_a_mistake_on_the_command_line_is_exit_code_2_and_makes_nothing(tmp_path, capsys, wrong, message):
    config = yaml_file(tmp_path)
    assert main(["train", "-c", str(config), "-e", str(tmp_path / "run"), *wrong]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("error: ")
    assert "Traceback" not in shown
    assert [p.name for p in tmp_path.iterdir()] == [config.name]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "-c", "c.yaml", "--exp-dir", "x"], "--exp-dir: unknown option; did you mean --exp_dir?"),
        (["train", "-c", "c.yaml", "--batch_size", "4"], "did you mean --train.batch_size?"),
        (["train", "-c", "c.yaml", "--batch_size=4"], "--batch_size: unknown option"),
        (["train", "--confg", "c.yaml"], "did you mean --config?"),
        (["sample", "--weights", "w", "--save_dir", "d", "--n_sample", "4"], "did you mean --n_samples?"),
        (["sample", "--weights", "w", "--save_dir", "d", "--sampels", "4"], "did you mean --n_samples?"),
        (["evaluate", "s", "--refrence", "digits"], "did you mean --reference?"),
        (["report", "run", "--titel", "x"], "did you mean --title?"),
        (["table", "-e", "run", "--keep-images"], "did you mean --keep_images?"),
        (["bench", "--step", "3"], "did you mean --steps?"),
        (["data", "inspect", "--root", "x"], "did you mean --data.root?"),
    ],
    ids=lambda given: " ".join(given)[:40] if isinstance(given, list) else "",
)
def test_a_mistyped_option_is_told_with_the_nearest(command, message, capsys):
    """Before anything is said of what is missing."""
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown


def forked_script(name, *given):
    """A script of ``scripts/`` with these words, in a process that has all imported already."""

    def call():
        sys.argv = [name, *map(str, given)]
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")

    return Forked(call)


def test_the_published_commands_of_xyfjasons_repository(tmp_path):
    """Their script, options and configuration, as they are documented; -ni only says not to ask."""
    network = {"in_channels": 1, "out_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True]}
    train = {"n_steps": 2, "batch_size": 8, "ema_decay": 0.9, "ema_gradual": True, "save_freq": 1, "sample_freq": 0}
    theirs = {
        "data": {"target": "datasets.ImageDir", "params": {"root": "r", "img_size": 8}, "img_channels": 1},
        "model": {"target": "models.unet.UNet", "params": {**network, "num_res_blocks": 1}},
        "diffusion": {"target": "diffusions.ddpm.DDPM", "params": {"total_steps": 10}},
        "train": {**train, "optim": {"target": "torch.optim.Adam", "params": {"lr": 0.001}}},
    }
    config, run = tmp_path / "theirs.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(theirs))
    images = tmp_path / "images"
    images.mkdir()
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(images / f"{i}.png")
    given = ["-c", config, "-e", run, "-ni", "--data.params.root", images, "--diffusion.params.beta_schedule", "cosine"]
    method = ["--diffusion.target", "diffusions.ddpm_ip.DDPM_IP", "--diffusion.params.gamma", "0.15"]
    code, output = finish(forked_script("train_ddpm.py", *given, *method))
    assert code == 0, output
    assert "is a configuration of xyfJASON's repository" in output
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["perturbation"]["name"], saved["perturbation"]["gamma"]) == ("input", 0.15)
    assert saved["diffusion"]["beta_schedule"] == "cosine"
    assert (saved["train"]["ema_warmup"], saved["seed"]) == (True, 2022)
    sampled = ["--weights", run, "--n_samples", 2, "--save_dir", tmp_path / "samples", "--sampler", "ddpm"]
    sampled += ["--respace_type", "none", "--var_type", "fixed_small"]
    code, output = finish(forked_script("sample_uncond.py", *sampled))
    assert code == 0, output
    facts = json.loads((tmp_path / "samples" / "sampling.json").read_text())
    assert (facts["steps"], facts["seed"], facts["sampler"]["var_type"]) == (10, 2022, "fixed_small")


def test_params_where_there_is_no_file(tmp_path, capsys):
    """The items on the command line are options then, too, and no configuration of another program."""
    out = str(tmp_path / "sheet.png")
    assert main(["data", "inspect", "--data.name", "digits", "--data.params.image_size", "8", "-o", out]) == 0
    assert "xyfJASON" not in "".join(capsys.readouterr())


def test_no_respacing_contradicts_a_number_of_steps(tmp_path, capsys):
    given = ["-c", str(yaml_file(tmp_path)), "--weights", "w", "--n_samples", "1", "--save_dir", str(tmp_path / "d")]
    assert main(["sample", *given, "--respace_type", "none", "--respace_steps", "5"]) == 2
    assert "--respace_type none visits every time" in capsys.readouterr().err


def test_a_configuration_that_is_missing(tmp_path, capsys):
    assert main(["train", "-c", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("data", [["--data.name", "cifar10"], ["--data.name", "folder", "--data.image_size", "8"]])
def test_missing_data_are_exit_code_1(tmp_path, capsys, data, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = [*data, "--data.root", str(tmp_path / "none")]
    assert main(["train", "-c", str(yaml_file(tmp_path)), "-e", str(tmp_path / "run"), *given]) == 1
    shown = capsys.readouterr().err
    assert "error: " in shown
    assert str(tmp_path / "none") in shown
    assert not (tmp_path / "run" / "ckpt").exists()
    assert not (tmp_path / "run" / "lock").exists()


def test_data_of_another_shape_are_told_with_the_cure(tmp_path, capsys):
    assert main(["train", "-c", str(yaml_file(tmp_path, {"in_channels": 3})), "-e", str(tmp_path / "run")]) == 1
    assert "--model.in_channels 1" in capsys.readouterr().err


def test_only_the_first_process_tells_of_a_mistake(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "-c", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err == ""


def test_help_needs_nothing_heavy(capsys):
    program = "import sys; from ddpm_ip.cli import main\n"
    program += "try: main(['train', '--help'])\nfinally: print('torch' in sys.modules)"
    code, output = finish(start("-c", program))
    assert code == 0
    assert "--exp_dir" in output
    assert output.splitlines()[-1] == "False"


def test_without_a_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_python_m_is_the_command():
    code, output = finish(start("-m", "ddpm_ip", "--version"))
    assert (code, output.split()[0]) == (0, "ddpm-ip")


def test_every_command_is_known_to_the_check_of_an_installation_and_each_script_is_a_command():
    assert set(COMMANDS) == set(_COMMANDS)
    doors = [re.search(r'script\("(.+)"\)', path.read_text())[1] for path in (ROOT / "scripts").glob("*.py")]
    assert doors
    assert set(doors) <= set(_COMMANDS)
