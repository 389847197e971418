"""What of ours is measured."""

from __future__ import annotations

from tests.tiny import tiny

from ddpm_ip.bench import ours


def test_nothing_of_the_sampled_network_is_zero() -> None:
    weights = ours._weights(tiny())
    assert all(tensor.any() for name, tensor in weights.items() if tensor.ndim > 1)
