"""The averaged weights are ``decay ema + (1 - decay) weights`` after every step, from the first one on.

With ``train.ema_warmup`` the decay rises as it is documented. What is saved is what is sampled from, and a run that
continues keeps its average (theme 1). torch's ``AveragedModel`` and buffers are in tests/test_ema.py.
"""

import pytest
import torch
from tests.tiny import largest_difference, run, step_folder, stop_at, tiny, weights

from ddpm_ip.run.weights import find_weights


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, False), (0.0, False), (0.9999, False), (0.9, True)])
def test_the_average_of_a_run_is_the_formula(tmp_path, decay, warmup):
    """By the weights of every step, across a resume; to the last bit with torch's own lerp."""
    config = tiny(n_steps=12, save_freq=1, keep_last=99, ema_decay=decay, ema_warmup=warmup, optim={"lr": 1e-2})
    run(config, tmp_path, None, stop_at(5))
    run(config, tmp_path, "latest")
    expected = weights(tmp_path, 1, "ema")
    for step in range(2, 13):
        now = weights(tmp_path, step)
        d = min(decay, (1 + step) / (10 + step)) if warmup else decay
        expected = {name: torch.lerp(v, now[name], 1 - d) for name, v in expected.items()}
        found = weights(tmp_path, step, "ema")
        assert [name for name, v in expected.items() if not torch.equal(v, found[name])] == [], step
    if decay:
        assert largest_difference(weights(tmp_path, 12), weights(tmp_path, 12, "ema")) > 1e-6
    else:
        assert largest_difference(weights(tmp_path, 12), weights(tmp_path, 12, "ema")) == 0


def test_the_decay_holds_from_the_first_step(tmp_path):
    """The average after step 1, by the initial weights, which the first gradient of a step of no length shows."""
    run(tiny(n_steps=1, save_freq=1, optim={"lr": 1e-30}), tmp_path / "still")
    run(tiny(n_steps=1, save_freq=1, optim={"lr": 1e-2}), tmp_path / "moved")
    initial, moved = weights(tmp_path / "still", 1), weights(tmp_path / "moved", 1)
    for name, found in weights(tmp_path / "moved", 1, "ema").items():
        assert torch.equal(found, torch.lerp(initial[name], moved[name], 1 - 0.9)), name


def test_sampling_takes_it(tmp_path):
    run(tiny(n_steps=3, save_freq=3, optim={"lr": 1e-2}), tmp_path)
    found = find_weights(tmp_path)
    assert found.checkpoint.path == step_folder(tmp_path, 3)
    expected = weights(tmp_path, 3, "ema")
    assert all(torch.equal(v, expected[name]) for name, v in found.tensors.items())
