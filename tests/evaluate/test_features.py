"""Extractors that an installed package offers by an entry point."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import ROOT
from tests.tiny_extractor import Tiny

from ddpm_ip.cli import main
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.evaluate.collect import extract
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


# --- code of somebody else, which may do anything ---------------------------------------------------------------------

CLASS = """
import torch

class Mine:
    name = "mine"

    def __init__(self, device):
        {making}

    def __call__(self, images):
        {calling}
        return {{"pool": images.double().flatten(1) / 255}}

    def identity(self):
        {identifying}
        return {{"version": 1}}
"""


def module(site: Path, text: str) -> str:
    """A module of that text, under a name that no other test has imported."""
    name = f"theirs_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    (site / f"{name}.py").write_text(text)
    return f"{name}:Mine"


def mine(site: Path, making: str = "pass", calling: str = "pass", identifying: str = "pass") -> str:
    return module(site, CLASS.format(making=making, calling=calling, identifying=identifying))


RAISES = {
    "import sys; sys.exit(3)": r"SystemExit \(which would end the program\): 3",
    "import sys; sys.exit()": "SystemExit",
    "raise SystemExit('bye')": "bye",
    "quit(1)": "SystemExit",
    "1 / 0": "ZeroDivisionError: division by zero",
    "raise BaseException('odd')": "BaseException: odd",
    "raise type('Rude', (Exception,), {'__str__': lambda self: 1 / 0})": "Rude.*no message",
    "raise RuntimeError('x' * 100_000)": "RuntimeError: x{500}$",
    "import asyncio; raise asyncio.CancelledError": "CancelledError",
    "(lambda f: f(f))(lambda f: f(f))": "RecursionError",
    "raise OSError(28, 'No space left on device')": "No space left",
}


@pytest.mark.parametrize("code", RAISES)
def test_whatever_somebody_elses_code_raises_is_told(site: Path, code: str) -> None:
    for name in (module(site, code), mine(site, making=code), mine(site, identifying=code)):
        with pytest.raises(ConfigError, match=RAISES[code]) as caught:
            find_extractor(name, CPU)
        assert len(str(caught.value)) < 1000
    extractor = find_extractor(mine(site, calling=code), CPU)
    with pytest.raises(ConfigError, match=RAISES[code]):
        extract(extractor, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["pool"])


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit(143)", "MemoryError"])
def test_what_is_nobodys_mistake_stays_what_it_is(site: Path, raised: str) -> None:
    """Ctrl-C, a signal (cli.py ends the program by 128 and its number), and the want of memory."""
    name = raised.partition("(")[0]
    for place in ("making", "identifying"):
        with pytest.raises(BaseException) as caught:  # noqa: PT011  (its kind is looked at below)
            find_extractor(mine(site, **{place: f"raise {raised}"}), CPU)
        assert type(caught.value).__name__ == name
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        find_extractor(module(site, f"raise {raised}"), CPU)
    assert type(caught.value).__name__ == name


@pytest.mark.parametrize(
    "text",
    [
        "def broken(:",
        "\0",
        "Mine = 3",
        "Mine = None",
        "Mine = lambda device: 7",
        "def __getattr__(name): raise OSError('no attributes today')",
        "class Mine:\n    name = property(lambda self: 1 / 0)\n    def __init__(self, device): pass\n"
        "    def identity(self): return {}\n    def __call__(self, images): return {}",
        "class Mine:\n    name = 3\n    def __init__(self, device): pass\n"
        "    def identity(self): return {}\n    def __call__(self, images): return {}",
        CLASS.format(making="self.name = 'a\\n\\x1b[2J'", calling="pass", identifying="pass"),
        CLASS.format(making="self.name = 'a' * 101", calling="pass", identifying="pass"),
        CLASS.format(making="self.name = '../../etc'", calling="pass", identifying="pass"),
        CLASS.format(making="pass", calling="pass", identifying="return [1]"),
        CLASS.format(making="pass", calling="pass", identifying="return {'a': {1, 2}}"),
        CLASS.format(making="pass", calling="pass", identifying="return {1: 1, 'a': 2}"),
        CLASS.format(making="pass", calling="pass", identifying="a = []; a.append(a); return {'a': a}"),
    ],
)
def test_what_is_no_extractor_is_refused(site: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        find_extractor(module(site, text), CPU)


@pytest.mark.parametrize("name", [":", "a:", ":a", "a b:c", "../x:y", "a..b:c", "a:b..c", "a\0:b", ".a:b", "a:b:c"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"not of the form package\.module:object"):
        find_extractor(name, CPU)


@pytest.mark.parametrize(
    "given",
    [
        "torch.zeros(2, 0)",
        "torch.zeros(3, 4)",
        "torch.zeros(2)",
        "torch.zeros(2, 4, 1)",
        "torch.zeros(2, 4, dtype=torch.complex64)",
        "torch.zeros(2, 4).to_sparse()",
        "torch.zeros(2, 4, device='meta')",
        "torch.full((2, 4), float('nan'))",
        "torch.full((2, 4), float('inf'))",
        "torch.full((2, 4), -1e60, dtype=torch.float64)",
        "torch.tensor([[1.0, 2.0], [3.0, float('-inf')]]).half()",
        "images.numpy()",
        "None",
        "'pool'",
    ],
)
def test_features_that_are_none_are_refused(site: Path, given: str) -> None:
    extractor = find_extractor(mine(site, calling=f"return {{'pool': {given}}}"), CPU)
    with pytest.raises(UserError, match="mine"):
        extract(extractor, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["pool"])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("float16", torch.float32),
        ("bfloat16", torch.float32),
        ("float32", torch.float32),
        ("float64", torch.float64),
        ("uint8", torch.float32),
        ("int64", torch.float64),
        ("bool", torch.float32),
    ],
)
def test_features_keep_their_precision(site: Path, given: str, kept: torch.dtype) -> None:
    extractor = find_extractor(mine(site, calling=f"return {{'pool': torch.ones(2, 4, dtype=torch.{given})}}"), CPU)
    found = extract(extractor, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["pool"])["pool"]
    assert found.dtype == kept
    assert torch.equal(found, torch.ones(2, 4, dtype=kept))
