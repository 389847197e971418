"""Under fp16 the gradient scaler is part of the state: a run that continues has its scale, and the same bits.

A step whose gradients overflow is left out, of the weights and of the average, and halves the scale; that is no
divergence. Here a CPU computes in fp16, for which a scaler is put into the engine by hand; that a GPU does the same
is a matter of Accelerate. What no scaler can have written is refused (tests/train/test_state.py).
"""

from itertools import pairwise

import pytest
import torch
from tests.tiny import alone, assert_same_state, meta, numbers, run, stop_at, tiny, weights

from ddpm_ip.train import loop

SCALE, STEPS = 2.0**26, 24  # a scale so large that the first steps overflow
CONFIG = tiny(n_steps=STEPS, save_freq=1, keep_last=99, optim={"lr": 1e-3})


def in_fp16(folder, resume=None, hooks=loop.NO_HOOKS):
    """Trains as on a GPU with ``mixed_precision: fp16``."""
    ordinary = loop.start_engine

    def start_engine(*given, **more):
        engine = ordinary(*given, **more)
        engine.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=3)
        engine.native_amp, engine.state._mixed_precision = True, "fp16"
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "start_engine", start_engine)
        return run(CONFIG, folder, resume, hooks)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert alone(lambda: in_fp16(folder)) == 0
    return folder


def scalers(folder):
    return [meta(folder, step)["scaler"] for step in range(1, STEPS + 1)]


def test_a_scale_that_has_moved_goes_on(tmp_path, straight):
    """Stopped while steps overflow, and between two growths."""
    for at in (3, STEPS - 5):
        assert alone(lambda at=at: in_fp16(tmp_path, "latest", stop_at(at))) == 0
    assert alone(lambda: in_fp16(tmp_path, "latest")) == 0
    assert scalers(tmp_path) == scalers(straight)
    assert_same_state(tmp_path, straight, STEPS)
    assert numbers(tmp_path) == numbers(straight)
    scales = [scaler["scale"] for scaler in scalers(straight)]
    assert scales[:3] == [SCALE / 2, SCALE / 4, SCALE / 8], "an overflow halves it"
    assert any(after > before for before, after in pairwise(scales)), "and it grows again"
    assert {scaler["_growth_tracker"] for scaler in scalers(straight)} == {0, 1, 2}


def test_a_step_that_overflows_moves_nothing(straight):
    scales = [scaler["scale"] for scaler in scalers(straight)]
    left_out = [step for step in range(2, STEPS + 1) if scales[step - 1] < scales[step - 2]]
    assert any(b - a > 1 for a, b in pairwise(left_out)), "one after the weights have moved, or the average could not"
    for step in range(2, STEPS + 1):
        for part in ("model", "ema"):
            before, after = weights(straight, step - 1, part), weights(straight, step, part)
            assert all(torch.equal(before[k], v) for k, v in after.items()) == (step in left_out), (step, part)
