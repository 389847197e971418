"""A network of one's own: the same walk as by hand, and what it cannot be said before anything is made."""

import json

import numpy as np
import pytest
import torch

import ddpm_ip as ip
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.images import grid, to_uint8

SHAPE = (3, 8, 12)


class Network(torch.nn.Conv2d):
    def forward(self, x, t):
        return 0.2 * super().forward(x) + 1e-3 * t.reshape(-1, 1, 1, 1)


def network(channels=3):
    torch.manual_seed(0)
    return Network(3, channels, 3, padding=1).eval()


@pytest.fixture
def denoiser():
    return ip.Denoiser(network(), ip.Schedule(beta_schedule="cosine"))


def test_it_is_walked_as_by_hand(denoiser):
    start_engine(None)
    settings = {"sampler": ip.DPMSolver(order=2), "corrections": [ip.EpsilonScaling(1.02)], "seed": 3, "block": 4}
    walk = ip.samples(denoiser, SHAPE, 6, steps=5, **settings)
    assert "6 images 3 x 8 x 12: dpm_solver,order=2" in repr(walk)
    sampling = ip.Sampling(settings["sampler"], tuple(settings["corrections"]), steps=5)
    plan = sampling.plan(denoiser.schedule)
    *_, last = ip.walk(plan, denoiser, 3, torch.arange(6), SHAPE, sampling.all_corrections())
    assert np.abs(to_uint8(last.xt).numpy().astype(int) - walk.images).max() <= 1, (
        "blocks of 4 and of 6 differ by rounding"
    )
    assert len(np.unique(walk.images.reshape(6, -1), axis=0)) == 6


def test_samples_are_a_collection_and_an_array(denoiser, tmp_path):
    walk = ip.samples(denoiser, SHAPE, 6, sampler=ip.DDIM(), steps=3, block=4)
    one_by_one = list(walk)
    assert walk._generator.kept == {}, "nothing is kept"
    assert [block.shape for block in walk.mine()] == [(4, *SHAPE), (2, *SHAPE)]
    assert walk._generator.kept == {}
    assert len(walk) == len(one_by_one) == 6
    assert np.array_equal(np.stack(one_by_one), walk.images)
    assert np.asarray(walk) is walk.images
    assert np.asarray(walk, dtype=np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(walk), walk.images)
    walk.save(tmp_path / "a")
    assert json.loads((tmp_path / "a/sampling.json").read_text())["network"] == walk.facts["network"]


def test_strips_go_from_noise_to_the_image(denoiser):
    walk = ip.samples(denoiser, SHAPE, 6, sampler=ip.DDIM(), steps=4, block=4)
    frames = [to_uint8(state.xt).numpy() for state in walk.states()]
    chosen = np.stack([frames[0], frames[2], frames[4]], axis=1)[:2]
    shown = np.asarray(walk.strips(2, frames=3))
    assert np.array_equal(shown, np.asarray(grid(chosen.reshape(6, *SHAPE), columns=3, scale=5)))
    predicted = np.asarray(walk.strips(1, frames=1, of="x0"))
    (*_, last) = walk.states()
    assert np.array_equal(predicted, np.asarray(grid(to_uint8(last.x0).numpy()[:1], scale=5)))
    with pytest.raises(ConfigError, match="of must be one of xt, x0, got 'eps'"):
        walk.strips(of="eps")


def test_two_networks_are_told_apart(denoiser, tmp_path):
    other = ip.Denoiser(lambda x, t: 1.01 * denoiser.network(x, t), denoiser.schedule)
    mine, theirs, again = (ip.samples(d, SHAPE, 2, sampler=ip.DDIM(), steps=2) for d in (denoiser, other, denoiser))
    assert mine.facts == again.facts
    mine.save(tmp_path / "a")
    with pytest.raises(ConfigError, match="holds images made otherwise"):
        theirs.save(tmp_path / "a")


def test_a_learned_variance_is_used_where_nobody_says():
    learned = ip.Denoiser(network(6), ip.Schedule(), "pred_v", learned_variance=True)
    assert ip.samples(learned, SHAPE, 2, steps=2).sampling.sampler.var_type == "learned_range"
    plain = ip.Denoiser(network(), ip.Schedule())
    assert ip.samples(plain, SHAPE, 2, steps=2).sampling.sampler.var_type == "fixed_small"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spacing": "optimised"}, "the spacing optimised is measured for the weights of a run"),
        ({"sampler": ip.Ancestral("analytic")}, "an analytic variance is measured"),
        ({"corrections": "auto"}, "the correction auto is measured"),
        ({"classes": 3}, "this model is unconditional"),
        ({"setps": 3}, "did you mean steps"),
        ({"shape": (3, 8)}, r"the shape of an image is \(C, H, W\), three whole numbers, not \(3, 8\)"),
        ({"shape": (3, 8, 0)}, "the shape of an image"),
        ({"network": network().train()}, r"in training mode.*network\.eval\(\)"),
        ({"network": lambda x, t: (x,)}, r"returns tuple, not a tensor \(2, 3, 8, 12\).*unet\(x, t\)\.sample"),
        ({"network": network(6)}, r"returns \(2, 6, 8, 12\).*learned_variance=True"),
        (
            {"network": network().to("meta")},
            r"the network is on meta, and images are made on cpu: network\.to\('cpu'\)",
        ),
        ({"cond": torch.zeros(2)}, "without a condition"),
    ],
)
def test_what_cannot_be_sampled(changed, message):
    shape = changed.pop("shape", SHAPE)
    own = {key: changed.pop(key) for key in ("network", "cond") if key in changed}
    denoiser = ip.Denoiser(**{"network": network(), "schedule": ip.Schedule(), **own})
    with pytest.raises(ConfigError, match=message):
        ip.samples(denoiser, shape, 2, **changed)
