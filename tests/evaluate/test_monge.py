"""The Monge distance: its public implementation's numbers, transport by trying everything, and closed forms."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluate.test_metrics import distant, features

from ddpm_ip.evaluate.monge import monge_distance

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((300, 340), 32.42796277999878), ((340, 300), 32.868767738342285), ((300, 300), 31.533649921417236)],
)
def test_equal_to_torch_fidelitys(sizes: tuple[int, int], expected: float) -> None:
    """Recorded of ``torch_fidelity.metric_mind`` at 5e211a9 (0.5.0-dev), 1,000 projections, seed 2020; in float32."""
    a, b = features(340, 0.0, 0)[: sizes[0]], features(340, 0.3, 1)[: sizes[1]]
    assert monge_distance(a, b, CPU) == pytest.approx(expected, rel=1e-6)
    assert monge_distance(b, a, CPU) == pytest.approx(expected, rel=1e-6)


def test_sorting_is_the_best_transport() -> None:
    """A second derivation: of all ways to join 5 points to 5 others along each line, the shortest."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)) * 2 + 1
    lines = torch.randn(9, 3, generator=torch.Generator().manual_seed(2020)).double().numpy()
    shortest = []
    for line in lines:
        a, b = (points @ line / np.sqrt(line @ line) for points in (x, y))
        shortest.append(min(np.mean((a - b[list(order)]) ** 2) for order in permutations(range(5))))
    assert monge_distance(x, y, CPU, directions=9) == pytest.approx(3 * 3 * np.mean(shortest), rel=1e-12)


def test_gaussians_have_the_closed_form() -> None:
    """Of one shape s1 I and s2 I it is 3 (|m1 - m2|^2 + D (s1 - s2)^2), thrice the Fréchet distance."""
    white = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 6)))[0]
    white = np.linalg.qr(white - white.mean(0))[0] * 20  # mean 0 and squares of mean 1 along any line, of this sample
    shift = np.array([1.0, -2, 0, 0, 3, 1])
    assert monge_distance(white, 3.5 * white, CPU) == pytest.approx(3 * 6 * 2.5**2, rel=1e-12)
    assert monge_distance(white, white + shift, CPU) == pytest.approx(3 * shift @ shift, rel=0.05)  # of 1,000 lines
    both = monge_distance(white, 3.5 * white + shift, CPU)
    parts = monge_distance(white, white + shift, CPU) + monge_distance(white, 3.5 * white, CPU)
    assert both == pytest.approx(parts, rel=1e-12)


def test_a_set_is_no_distance_from_itself_in_whatever_order() -> None:
    rows = features(90, 5.0, 0)
    assert monge_distance(rows, rows[::-1].copy(), CPU) < 1e-20


@pytest.mark.parametrize("ratio", [1e3, 1e6, 1e8])
def test_it_keeps_its_digits_whatever_the_mean(ratio: float) -> None:
    """The rows are such that moving them is exact."""
    x, y = (np.round(distant(200, 0.0, seed, 0.3 * seed) * 64) / 64 for seed in (0, 1))
    away = np.array([ratio, -3 * ratio, 0.0])
    assert monge_distance(x + away, y + away, CPU) == pytest.approx(monge_distance(x, y, CPU), rel=1e-12)


def test_it_does_not_depend_on_how_rows_and_lines_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on whether they lie on the disk."""
    a, b = features(300, 0.0, 0), features(340, 0.3, 1)
    whole = monge_distance(a, b, CPU)
    monkeypatch.setattr("ddpm_ip.evaluate.monge.HELD", 2000)
    monkeypatch.setattr("ddpm_ip.evaluate.monge.PIECE", 7)
    b.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype="<f4", mode="c").reshape(-1, 24)
    assert monge_distance(a, mapped, CPU) == pytest.approx(whole, rel=1e-12)
