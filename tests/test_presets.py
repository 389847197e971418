"""The presets that ship with the package, found by name from anywhere."""

import os
from pathlib import Path

import pytest
from tests.install.check import ROOT

from ddpm_ip import presets
from ddpm_ip.config import load
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.program import find_reference

SHIPPED = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_name_is_a_file_of_the_folder_configs():
    assert presets.names() == SHIPPED
    assert "ddpm_ip_cifar10" in SHIPPED
    for text in ("ddpm_ip_cifar10", "ddpm_ip_cifar10.yaml", Path("ddpm_ip_cifar10")):
        assert presets.find(text) == ROOT / "configs/ddpm_ip_cifar10.yaml"
    assert load("ddpm_ip_cifar10") == load(ROOT / "configs/ddpm_ip_cifar10.yaml")
    assert load("ddpm_ip_digits", {"seed": 3}).seed == 3
    assert find_reference("ddpm_ip_digits", None, None) == load("ddpm_ip_digits").data


def test_in_an_installed_package_they_lie_inside_it(tmp_path, monkeypatch):
    """As the wheel has them; ``make test-install`` looks at a real one."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.yaml").write_text("# Mine. More.\n")
    monkeypatch.setattr(presets, "checkout", lambda: None)
    monkeypatch.setattr(presets, "__file__", str(tmp_path / "presets.py"))
    assert presets.names() == ["mine"]
    assert presets.summary("mine") == "Mine."
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"configs" = "ddpm_ip/configs"' in project.partition("wheel.force-include]")[2].partition("\n[")[0]


def test_a_file_wins_and_a_folder_does_not():
    os.mkdir("ddpm_ip_cifar10")
    assert presets.find("ddpm_ip_cifar10").is_file()
    Path("ddpm_ip_digits").write_text("data: {name: digits}\nseed: 7\n")
    assert load("ddpm_ip_digits").seed == 7
    assert presets.find("ddpm_ip_digits") == Path("ddpm_ip_digits")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ddpm_ip_cifar", "no preset of that name; did you mean ddpm_ip_cifar10, "),
        ("ddpm_ip_cifar.yaml", "no preset of that name; did you mean ddpm_ip_cifar10, "),
        ("zzz", "no preset of that name; `ddpm-ip config` lists the presets"),
        ("configs/ddpm_cifar10.yaml", "the preset of that name is ddpm_cifar10"),
        ("no/such.yaml", "No such file"),
        ("x" * 300, "no preset of that name"),
        ("a\0b", "no preset of that name"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near(text, said):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(text)
    assert said in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_says_in_one_line_what_it_is_and_looks_for_data_below_the_current_folder(name):
    line = presets.summary(name)
    assert 20 < len(line) < 160
    assert line.endswith(".")
    assert "(" not in line
    root = getattr(load(name).data, "root", "data/in the package")
    assert Path(root).parts[0] == "data"
