"""Two processes, or one in micro-batches, take the step that one process takes of the same global batch.

Images, times, noise and perturbation are the same bits; gradients the same up to the order of summation, 1e-6.
"""

import pytest
import torch
from tests.reliability.recording import assert_same_given, given, gradients, train_and_record
from tests.tiny import alone, largest_difference, tiny, two_processes

from ddpm_ip.run import checkpoint

BATCH = 16


def config(**settings):
    return tiny({"dropout": 0.0}, n_steps=2, batch_size=BATCH, flip=True, clip_grad_norm=None, **settings)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    home = tmp_path_factory.mktemp("one")
    assert alone(lambda: train_and_record(config(), home / "run", home / "given")) == 0
    return home


def test_the_given_is_not_trivial(one):
    first = given(one / "given", 0)
    assert all(
        len(torch.unique(first[key].flatten(1) if first[key].ndim > 1 else first[key], dim=0)) == BATCH
        for key in ("x0", "eps", "xi")
    )
    assert len(first["t"].unique()) > BATCH // 2
    assert max(float(v.abs().max()) for v in gradients(one / "given").values()) > 1e-3


def test_two_processes(one, tmp_path):
    assert two_processes(lambda: train_and_record(config(), tmp_path / "run", tmp_path / "given")) == [0, 0]
    assert_same_given(one / "given", tmp_path / "given", 2, BATCH)
    assert largest_difference(gradients(one / "given"), gradients(tmp_path / "given")) < 1e-6
    assert checkpoint.newest(tmp_path / "run" / "ckpt").meta["count"] == 0


@pytest.mark.parametrize("micro", [8, 5])
def test_micro_batches(one, tmp_path, micro):
    """Also those that do not divide the batch."""
    assert alone(lambda: train_and_record(config(micro_batch=micro), tmp_path / "run", tmp_path / "given")) == 0
    assert_same_given(one / "given", tmp_path / "given", 2, BATCH)
    assert largest_difference(gradients(one / "given"), gradients(tmp_path / "given")) < 1e-6


def test_micro_batches_on_two_processes(one, tmp_path):
    both = lambda: train_and_record(config(micro_batch=3), tmp_path / "run", tmp_path / "given")  # noqa: E731
    assert two_processes(both) == [0, 0]
    assert_same_given(one / "given", tmp_path / "given", 2, BATCH)
    assert largest_difference(gradients(one / "given"), gradients(tmp_path / "given")) < 1e-6
