"""Extractors that an installed package offers by an entry point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import ROOT
from tests.tiny_extractor import Tiny

from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.features import BUILT_IN, Pixels, find_extractor

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


def install(site: Path, package: str, *lines: str) -> Path:
    """What pip leaves of a package that offers extractors."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[ddpm_ip.extractors]", *lines, ""]))
    return site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_command_finds_an_entry_point(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "theirs", "mine = tiny_extractor:Tiny [extra]", "made = tiny_extractor:ready")
    assert type(find_extractor("mine", CPU)).__name__ == type(find_extractor("made", CPU)).__name__ == "Tiny"
    images = np.random.default_rng(0).integers(0, 256, size=(20, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    np.savez(tmp_path / "b.npz", images=255 - images)
    given = ["evaluate", str(tmp_path / "a.npz"), "--reference", str(tmp_path / "b.npz")]
    assert main([*given, "--extractor", "mine"]) == 0
    assert "FD-tiny" in capsys.readouterr().out
    assert main([*given, "--extractor", "mien"]) == 2
    shown = capsys.readouterr().err
    for part in ("mien", *BUILT_IN, "made, mine", "package.module:object"):
        assert part in shown


def test_nobody_offers_any(site: Path) -> None:
    with pytest.raises(ConfigError, match="no installed package offers any"):
        find_extractor("mine", CPU)


def test_an_entry_point_cannot_stand_in_for_a_built_in_one(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "theirs", *(f"{name} = tiny_extractor:Tiny" for name in BUILT_IN), "mine = tests.tiny_extractor:Tiny")
    assert isinstance(find_extractor("pixels", CPU), Pixels)
    monkeypatch.setattr(Tiny, "name", "pixels")  # nor take its name
    with pytest.raises(ConfigError, match="cannot be called 'pixels'"):
        find_extractor("mine", CPU)


def test_a_name_that_two_packages_offer_is_refused_unless_they_mean_the_same(site: Path) -> None:
    install(site, "one", "mine = tiny_extractor:Tiny", "same = tiny_extractor:Tiny")
    install(site, "two", "mine = tiny_extractor:ready", "same = tiny_extractor:Tiny")
    with pytest.raises(ConfigError, match="several installed packages offer") as caught:
        find_extractor("mine", CPU)
    assert "tiny_extractor:Tiny" in str(caught.value)
    assert "tiny_extractor:ready" in str(caught.value)
    assert find_extractor("same", CPU).name == "tiny"


def test_a_broken_entry_point_says_what_is_wrong(site: Path) -> None:
    install(site, "theirs", "gone = nowhere.at_all:Mine", "less = tiny_extractor:Big", "module = tiny_extractor")
    for name, part in {"gone": "nowhere", "less": "Big", "module": "tiny_extractor"}.items():
        with pytest.raises(ConfigError, match=part):
            find_extractor(name, CPU)
