"""What is counted of a network, and that counting and measuring draw nothing from training's generator."""

from __future__ import annotations

import pytest
import torch

from ddpm_ip import flops
from ddpm_ip.config import from_dict
from ddpm_ip.flops import gflop_per_image, matrix_product, peak_tflops


def test_operations_of_the_cifar10_network() -> None:
    before = torch.random.get_rng_state()
    evaluation, step = gflop_per_image(from_dict({"data": {"name": "cifar10"}}))
    assert evaluation == pytest.approx(12.44, abs=0.01)
    assert step == pytest.approx(37.32, abs=0.01)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_large_product_counts_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flops.MATMUL, "cpu", (4, torch.float32))
    before = torch.random.get_rng_state()
    product, flop = matrix_product(torch.device("cpu"))
    assert product().shape == (4, 4)  # type: ignore[attr-defined]
    assert flop == 4 * 4 * (4 + 4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_peak_of_a_cpu_is_not_known() -> None:
    assert peak_tflops(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("number", "capability", "ms", "expected"),
    [(1, (9, 0), [2.0, 4.0, 1.0], 1000.0), (2, (7, 0), [2.0], None), (3, (9, 0), None, None)],
    ids=["a GPU with bf16", "an older one", "a full one"],
)
def test_the_peak_of_a_gpu(monkeypatch, number, capability, ms, expected) -> None:  # type: ignore[no-untyped-def]
    """With a stand-in for the GPU; tests/gpu has the real one."""

    def product() -> None:
        if ms is None:
            raise torch.cuda.OutOfMemoryError("full")

    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    monkeypatch.setattr(flops, "matrix_product", lambda device: (product, 2 * 10**12))
    monkeypatch.setattr(flops, "by_events", lambda product, steps: ms)
    assert peak_tflops(torch.device("cuda", number)) == expected
    assert bool(freed) == (capability >= (8, 0))
