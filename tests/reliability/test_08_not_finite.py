"""A loss or a gradient that is no number stops the run before the optimizer, the average and the disk see it.

On a GPU, which is not looked at in every step, it stops when the next line is logged or the next checkpoint is to be
saved: nothing that is not finite is ever saved. There is one policy, to stop; steps are not skipped and nothing is
rolled back by itself (but for the scaler of fp16, theme 9): the message says from which checkpoint to continue, and
with what. What is saved and what is said when a state is ruined is in tests/train/test_diverged.py.
"""

import os
import re

import pytest
import torch
from tests.tiny import run, steps_saved, tiny, two_processes, weights, yaml_file

from ddpm_ip.cli import main
from ddpm_ip.errors import Diverged, UserError
from ddpm_ip.objective import Objective
from ddpm_ip.run import checkpoint
from ddpm_ip.train.step import TrainStep

BAD = [float("nan"), float("inf"), -float("inf")]


def poison_the_loss(patch, step, value, row=0):
    ordinary = Objective.__call__

    def call(self, denoiser, x0, draws, cond):
        losses = ordinary(self, denoiser, x0, draws, cond)
        if draws.step != step:
            return losses
        factor = torch.ones_like(losses.per_sample)
        factor[row] = value
        return losses._replace(per_sample=losses.per_sample * factor)

    patch.setattr(Objective, "__call__", call)


def poison_the_gradients(patch, step, value):
    ordinary = TrainStep._clip

    def clip(self):
        if self.state.step == step:
            last = list(self.state.network.parameters())[-1]
            last.grad.view(-1)[0] = value  # one number of one parameter
        return ordinary(self)

    patch.setattr(TrainStep, "_clip", clip)


def watch(patch):
    """Notes what a step that failed did to network, average and optimizer, and whether that was called."""
    ordinary, touched = TrainStep.__call__, []

    def state(step):
        return {f"{g}.{k}": v.clone() for g, group in step.state.tensors().items() for k, v in group.items()}

    def call(step):
        before, optimize = state(step), step.optimizer.step
        calls = []
        object.__setattr__(step.optimizer, "step", lambda *given: (calls.append(1), optimize(*given)))
        try:
            return ordinary(step)
        except UserError:
            touched.append([k for k, v in state(step).items() if not torch.equal(v, before[k])] + calls)
            raise
        finally:
            object.__setattr__(step.optimizer, "step", optimize)

    patch.setattr(TrainStep, "__call__", call)
    return touched


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize(
    ("what", "settings"),
    [
        (poison_the_loss, {}),
        (poison_the_loss, {"micro_batch": 3}),
        (poison_the_gradients, {}),
        (poison_the_gradients, {"clip_grad_norm": None}),
    ],
)
def test_it_stops_before_it_does_harm(tmp_path, monkeypatch, what, settings, value):
    what(monkeypatch, 5, value)
    touched = watch(monkeypatch)
    with pytest.raises(Diverged) as caught:
        run(tiny(**settings, n_steps=9), tmp_path)
    assert touched == [[]]
    assert steps_saved(tmp_path) == [2, 4]
    assert all(bool(torch.isfinite(v).all()) for v in weights(tmp_path, 4).values())
    said = str(caught.value)
    assert re.search(r"the loss \(\S+\) or the gradient norm \(\S+\) is not finite at step 5\. ", said)
    assert f"{tmp_path / 'ckpt' / 'step00000004'} (step 4): continue from it (-r latest -e {tmp_path}) with" in said
    assert "a lower train.optim.lr" in said
    monkeypatch.undo()
    assert run(tiny(**settings, n_steps=6), tmp_path, "latest").step == 6


def test_in_one_of_two_processes_it_stops_both(tmp_path):
    """Before the optimizer of either, and nothing is saved."""
    whys = tmp_path / "whys"
    whys.mkdir()

    def call():
        rank = os.environ["RANK"]
        with pytest.MonkeyPatch.context() as patch:
            touched = watch(patch)
            if rank == "1":
                poison_the_loss(patch, 5, float("nan"))
            with pytest.raises(Diverged, match="is not finite at step 5"):
                run(tiny(n_steps=9), tmp_path / "run")
        assert touched == [[]]
        (whys / rank).touch()
        os._exit(0)  # the processes need not part together

    assert two_processes(call) == [0, 0]
    assert sorted(p.name for p in whys.iterdir()) == ["0", "1"]
    assert steps_saved(tmp_path / "run") == [2, 4]


def test_a_learning_rate_that_diverges_is_an_error_exit(tmp_path, capsys):
    command = ["train", "-c", str(yaml_file(tmp_path, save_freq=1, n_steps=50)), "-e", str(tmp_path / "run")]
    assert main([*command, "--train.optim.lr", "1e30"]) == 1
    assert "train.optim.lr" in capsys.readouterr().err
    found = checkpoint.newest(tmp_path / "run" / "ckpt")
    assert found is None or all(bool(torch.isfinite(v).all()) for v in found.tensors("model").values())
