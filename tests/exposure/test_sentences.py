"""What a calibration says: true whatever was chosen, and readable."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from ddpm_ip.exposure.candidates import BALANCE, CONSTANT, NONE, UNDONE, Candidate
from ddpm_ip.exposure.choice import Chosen, choose
from ddpm_ip.exposure.sentences import WIDTH, as_text, cannot_know, expects, suggestions, why
from ddpm_ip.exposure.truth import Truth
from ddpm_ip.sampler.correction import EpsilonScaling, IPEmulator

KNOWN = Truth(torch.ones(2, 4), torch.tensor([0.98, 1.0]), torch.ones(2))


def candidate(name: str, share: float, before: float = 10.0, n: int = 2000, chain: tuple = ()) -> Candidate:
    fitted = SimpleNamespace(statistics=torch.zeros(n, 1))
    return Candidate(name, chain, share * before, before, fitted)  # type: ignore[arg-type]


def chosen(*others: Candidate, features: str | None = None, before: float = 10.0, n: int = 2000, **distances) -> Chosen:
    tried = [candidate(NONE, 1.0, before, n), *others]
    best = min(tried, key=lambda c: distances[c.name]) if features else choose(tried)
    return Chosen(best, tried, features, distances)


@pytest.mark.parametrize(
    ("found", "said", "expected"),
    [
        (chosen(candidate(BALANCE, 0.25)), "leaves 0.25 times", ["goes from 10 to 2.5"]),
        (chosen(candidate(BALANCE, 0.7), candidate("tsr", 0.8)), "the best of 2 corrections (band_gains)", ["at 10"]),
        (chosen(candidate(BALANCE, 1.2)), "no correction makes the mismatch smaller", ["at 10"]),
        (chosen(), "nothing to try", ["at 10"]),
        (chosen(candidate(BALANCE, 0.0, 0.0), before=0.0), "no mismatch", ["at 0"]),
        (chosen(candidate(BALANCE, 0.0)), "leaves 0.00 times", ["goes from 10 to 0"]),
        (
            chosen(candidate(BALANCE, 0.5), features="pixels", none=2.0, band_gains=1.5),
            "nearest to real images in the features of pixels", ["from 10 to 5", "from 2 to 1.5"],
        ),
        (
            chosen(candidate(BALANCE, 0.5), features="pixels", none=2.0, band_gains=2.5),
            "no correction brings 2000 images clearly nearer", ["at 10"],
        ),
    ],
)  # fmt: skip
def test_why_and_what_is_expected(found: Chosen, said: str, expected: list[str]) -> None:
    assert said in why(found)
    assert all(one in text for one, text in zip(expected, expects(found), strict=True))


def test_what_is_left_open_names_who_decided_and_few_images() -> None:
    few = chosen(candidate(BALANCE, 0.25), n=100)
    assert any("100 images are few" in text for text in cannot_know(few))
    (one,) = cannot_know(chosen(candidate(BALANCE, 0.25)))
    assert one.startswith("The mismatch sees")
    assert "pixels" in cannot_know(chosen(features="pixels", none=1.0))[0]


def scaled(scale: float, share: float, gamma: float | None) -> str:
    tried = [candidate(NONE, 1.0), candidate(CONSTANT, share, chain=(EpsilonScaling(scale),))]
    return suggestions(tried, KNOWN, gamma)["gamma"]


def test_gamma_is_suggested_only_where_a_constant_scale_helps() -> None:
    """A scale of s takes as much of the noise as another factor 1 / (1 + gamma^2) of the network's would."""
    assert f"gamma {math.sqrt(0.02):.2g}," in scaled(1.02, 0.5, 0.0)
    assert f"gamma {math.sqrt(1.02 * 1.01 - 1):.2g}," in scaled(1.02, 0.5, 0.1)
    assert "a stronger perturbation" in scaled(1.02, 0.5, None)
    assert "less perturbation" in scaled(0.98, 0.5, 0.1)
    assert "no perturbation" in scaled(0.98, 0.5, 0.0)
    assert all("nothing is said about gamma" in scaled(1.02, share, 0.1) for share in (1.1, 0.95))


def test_undoing_is_named_only_where_it_was_tried() -> None:
    assert "undo" not in suggestions([candidate(NONE, 1.0)], KNOWN, None)
    for share, effect in ((0.4, "it helps"), (1.05, "it makes no clear difference"), (1.3, "it does harm")):
        tried = [candidate(NONE, 1.0), candidate(UNDONE, share, chain=(IPEmulator(0.1, undo=True),))]
        said = suggestions(tried, KNOWN, 0.1)["undo"]
        assert f"gamma=0.1,undo=true) leaves {share:.2f} times the mismatch: with this sampler {effect}" in said
    assert "0.990 to 1" in suggestions(tried, KNOWN, 0.1)["slope"]
    assert "Perturbation" not in suggestions(tried, KNOWN, 0.0)["slope"]


def test_the_text_fits_a_narrow_window() -> None:
    found = {
        "candidates": [{"name": "epsilon_scaling by the network's slope", "n": 2000, "mismatch": 1234.567,
                        "share": 12.345, "distance": 1234.567}],
        "chosen": NONE, "why": "word " * 60, "expects": ["a"], "suggestions": {"b": "word " * 60},
        "cannot_know": ["`ddpm-ip table --corrections none auto`."],
    }  # fmt: skip
    assert all(len(line) <= WIDTH for line in as_text(found, "file").splitlines())
