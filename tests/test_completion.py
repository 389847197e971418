"""What a shell completes. No shell is started: it asks by variables, and reads what is written."""

import io
import os

import pytest

from ddpm_ip import completion, presets
from ddpm_ip.cli import main
from ddpm_ip.evaluate.features import BUILT_IN
from ddpm_ip.evaluate.program import NAMED
from ddpm_ip.exposure.measure import MEASURES
from ddpm_ip.sampler.spacing import parsed


def test_the_names_that_are_written_out_are_those_that_there_are():
    assert set(completion.EXTRACTORS) == set(BUILT_IN)
    assert set(completion.REFERENCES) == set(NAMED)
    assert set(completion.WORDS["--measure"]) == set(MEASURES)
    for spacing in completion.SPACINGS:
        assert parsed(spacing)[0] == spacing


def completed(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What argcomplete tells a shell of a line whose cursor is at its end."""
    argcomplete = pytest.importorskip("argcomplete")
    told, real = io.StringIO(), argcomplete.autocomplete

    def autocomplete(parser, **given):
        real(parser, exit_method=_done, output_stream=told, **given)

    monkeypatch.setattr(argcomplete, "autocomplete", autocomplete)
    for name, value in {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("_ARGCOMPLETE_IFS", "\n")
    with pytest.raises(Done):
        main([])
    return told.getvalue().split("\n")


class Done(Exception):
    """The program would have ended."""


def _done(code: int) -> None:
    raise Done


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ddpm-ip comp", ["compare-samplers "]),
        ("ddpm-ip sample --sampler ddi", ["ddim "]),
        ("ddpm-ip sample --weig", ["--weights "]),
        ("ddpm-ip sample run --train.n_steps 3 --clip re", ["rederive "]),
        ("ddpm-ip table -e run --corrections none eps", ["epsilon_scaling "]),
        ("ddpm-ip train -c ddpm_ip_dig", ["ddpm_ip_digits "]),
        ("ddpm-ip train -r l", ["latest "]),
        ("ddpm-ip evaluate x --reference mnist-te", ["mnist-test "]),
        ("ddpm-ip config adm_ip_c", ["adm_ip_celeba64", "adm_ip_cifar10"]),
    ],
)
def test_options_and_names_are_completed(line, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completed(line, monkeypatch) == expected


def test_files_are_completed_beside_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ddpm_ip_mine.yaml", "ddpm_ip_mine.txt"):
        (tmp_path / name).touch()
    found = completed("ddpm-ip train -c ddpm_ip", monkeypatch)
    assert "ddpm_ip_mine.yaml" in found
    assert "ddpm_ip_mine.txt" not in found
    assert {name for name in presets.names() if name.startswith("ddpm_ip")} < set(found)


def test_without_argcomplete_the_program_runs_as_ever(monkeypatch, capsys):
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(__import__("sys").modules, "argcomplete", None)
    assert main(["config"]) == 0
    assert "ddpm_ip_cifar10" in capsys.readouterr().out
    assert os.environ["_ARGCOMPLETE"] == "1"
