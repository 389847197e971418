"""The command ``config``, which shows what the package brings."""

from tests.install.check import ROOT

from ddpm_ip import presets
from ddpm_ip.cli import main


def test_alone_it_lists_the_presets(capsys):
    assert main(["config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(presets.names())]] == presets.names()


def test_a_name_prints_the_preset_with_its_comments(capsys):
    assert main(["config", "ddpm_ip_folder"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs/ddpm_ip_folder.yaml").read_text(encoding="utf-8")


def test_keys_lists_every_key_or_a_part(capsys):
    assert main(["config", "--keys"]) == 0
    every = capsys.readouterr().out
    assert main(["config", "--keys", "train.optim"]) == 0
    part = capsys.readouterr().out
    assert "train.optim.lr: 0.0002  (number > 0; noted)" in part
    assert part.partition("\n\n")[0] in every
    assert "train.batch_size" in every.replace(part, "")


def test_mistakes_are_told(capsys):
    for given, said in (
        (["ddpm_ip_digit"], "did you mean ddpm_ip_digits"),
        (["--keys", "gama"], "did you mean gamma?"),
        (["ddpm_ip_digits", "--keys"], "give one of them"),
        (["ddpm_ip_digits", "more"], "unexpected argument 'more'"),
    ):
        assert main(["config", *given]) == 2
        assert said in capsys.readouterr().err
