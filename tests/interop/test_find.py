"""Other people's networks give here what they give there."""

import pytest
import torch
from safetensors.torch import save_file
from tests.interop.originals import Pesser, PytorchDDPM, Sizes, XyfJason, random
from tests.nn.guided import Guided
from tests.nn.guided import Sizes as GuidedSizes

from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.interop.find import given, network, source
from ddpm_ip.nn.network import Cond

SIZE = {"data.image_size": 8}
ORIGINALS = {"xyfJASON": XyfJason, "pytorch-ddpm": PytorchDDPM, "pytorch_diffusion": Pesser}


def imported(path, **options):
    """The network of a file as it is here, and what was found."""
    found = network(source(path), given(None, {**SIZE, **{k.replace("__", "."): v for k, v in options.items()}}))
    own = found.config.build_network().eval()
    own.load_state_dict(found.imported.tensors)
    return own, found


def saved(tmp_path, state, name="weights.pt"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def noisy(n=2, channels=3, size=8, t=50):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, channels, size, size, generator=generator), torch.randint(0, t, (n,), generator=generator)


@pytest.mark.parametrize(
    "sizes",
    [Sizes(), Sizes(1, 32, (1, 1, 2), (True, False, True), 2), Sizes(3, 64, (2,), (False,), 1)],
    ids=["two levels", "three levels", "one level"],
)
@pytest.mark.parametrize("name", ORIGINALS)
def test_a_network_gives_here_what_it_gives_there(tmp_path, name, sizes):
    theirs = random(ORIGINALS[name](sizes))
    own, found = imported(saved(tmp_path, theirs.state_dict()))
    assert found.imported.format == name
    model = found.config.model
    assert (model.in_channels, model.dim, model.dim_mults) == (sizes.channels, sizes.width, tuple(sizes.mults))
    assert (model.use_attn, model.num_res_blocks) == (tuple(sizes.attention), sizes.blocks)
    x, t = noisy(channels=sizes.channels)
    with torch.no_grad():
        expected = theirs(x, t)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(own(x, t), expected, atol=1e-5, rtol=0)


GUIDED = {
    "improved": (GuidedSizes(num_heads=4, out_channels=6), {}),
    "LSUN": (GuidedSizes(use_scale_shift_norm=False), {}),
    "ADM": (
        GuidedSizes(channel_mult=(0.5, 1, 2), num_channels=64, attention=(False, True, True), resblock_updown=True,
                    num_head_channels=32, out_channels=6),
        {"model__head_channels": 32},
    ),
    "classes, new order": (
        GuidedSizes(num_classes=5, num_heads=2, use_new_attention_order=True, num_res_blocks=2, resblock_updown=True),
        {"model__n_heads": 2, "model__attention_order": "new"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDED)
def test_a_network_of_guided_diffusion_gives_here_what_it_gives_there(tmp_path, name):
    sizes, options = GUIDED[name]
    theirs = random(Guided(sizes))
    own, found = imported(saved(tmp_path, theirs.state_dict()), **options)
    model = found.config.model
    assert (model.resblock_updown, model.scale_shift_norm) == (sizes.resblock_updown, sizes.use_scale_shift_norm)
    assert found.config.diffusion.learned_variance == (sizes.out_channels == 6)
    x, t = noisy()
    y = None if sizes.num_classes is None else torch.tensor([4, 0])
    assert found.config.classes == y if y is None else found.config.classes.count == 5
    with torch.no_grad():
        expected = theirs(x, t * model.time_scale, *([] if y is None else [y]))
        assert expected.abs().max() > 0.1
        got = own(x, t) if y is None else own(x, t, Cond(y))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_what_is_assumed_of_the_published_networks_is_what_they_had(tmp_path):
    """The flags of the READMEs, by sizes: improved-diffusion's CIFAR-10, DDPM-IP's, and guided-diffusion's LSUN."""

    def facts(**sizes):
        state = Guided(GuidedSizes(num_channels=32, out_channels=6, **sizes)).state_dict()
        _, found = imported(saved(tmp_path, state))
        m, d = found.config.model, found.config.diffusion
        assert any("attention_order" in text for text in found.assumed)
        return m.n_heads, m.head_channels, m.attention_order, m.time_scale, d.total_steps, d.beta_schedule

    assert facts(num_res_blocks=3) == (4, None, "legacy", 0.25, 4000, "cosine")
    assert facts(num_res_blocks=3, num_classes=3) == (4, None, "legacy", 1.0, 4000, "cosine")
    assert facts(use_scale_shift_norm=False) == (1, None, "legacy", 1.0, 1000, "linear")
    wide = {"channel_mult": (2, 2), "resblock_updown": True}
    assert facts(num_res_blocks=3, **wide) == (1, 64, "new", 1.0, 1000, "cosine")
    assert facts(num_res_blocks=2, **wide) == (1, 64, "legacy", 1.0, 1000, "linear")


def test_half_precision_becomes_float32(tmp_path):
    theirs = random(XyfJason(Sizes())).half()
    own, _ = imported(saved(tmp_path, theirs.state_dict()))
    assert {v.dtype for v in own.state_dict().values()} == {torch.float32}
    x, t = noisy()
    with torch.no_grad():
        torch.testing.assert_close(own(x, t), theirs.float()(x, t), atol=1e-5, rtol=0)


@pytest.mark.parametrize("where", ["bare", "model", "module", "both", "list", "shadow", "safetensors"])
def test_the_average_is_found_wherever_it_lies(tmp_path, where):
    """And the other one is not taken for it."""
    raw, average = (random(XyfJason(Sizes()), seed).state_dict() for seed in (1, 2))
    other = {f"module.{k}": v for k, v in raw.items()}
    path = {
        "bare": lambda: saved(tmp_path, average, "ema_0.9999_500000.pt"),
        "model": lambda: saved(tmp_path, {"model": average}, "ema_model.pt"),
        "module": lambda: saved(tmp_path, {"ema": {"shadow": {f"module.{k}": v for k, v in average.items()}}}),
        "both": lambda: saved(tmp_path, {"net_model": raw, "ema_model": average, "step": 5, "x_T": torch.zeros(3)}),
        "list": lambda: saved(tmp_path, [other, {"state": {0: {"step": 1}}}, 3, 4, average], "ckpt.pth"),
        "shadow": lambda: saved(tmp_path, {"model": raw, "ema": {"decay": 0.9, "shadow": list(average.values())}}),
        "safetensors": lambda: save_file(average, tmp_path / "ema.safetensors") or tmp_path / "ema.safetensors",
    }[where]()
    own, found = imported(path)
    assert found.imported.averaged is True
    expected = imported(saved(tmp_path, average, "alone.pt"))[0].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in own.state_dict().items())


def test_a_folder_of_xyfjasons_and_an_average_without_names(tmp_path):
    raw, average = (random(XyfJason(Sizes()), seed).state_dict() for seed in (1, 2))
    saved(tmp_path, {"ema": {"decay": 0.9, "shadow": list(average.values()), "num_updates": 1}}, "ema.pt")
    with pytest.raises(CheckpointError, match=r"no names.*give ema_model\.pt"):
        imported(tmp_path / "ema.pt")
    saved(tmp_path, {"model": raw}, "model.pt")
    by_order, _ = imported(tmp_path / "ema.pt")
    saved(tmp_path, {"model": average}, "ema_model.pt")
    by_name, _ = imported(tmp_path)
    assert all(torch.equal(v, by_order.state_dict()[k]) for k, v in by_name.state_dict().items())
    assert imported(tmp_path / "model.pt")[1].imported.averaged is False


REFUSED = {
    "cut off": (lambda s: s.pop("up_blocks.0.0.blk2.3.weight"), "lacks up_blocks.0.0.blk2.3.weight"),
    "more": (lambda s: s.update({"extra.weight": torch.ones(3)}), "no layer here has its 'extra.weight'$"),
    "another shape": (lambda s: s.update({"last_conv.2.weight": torch.ones(3, 32, 1, 1)}), "conv_out.weight has shape"),
    "no image": (lambda s: s.update({"first_conv.weight": torch.ones(32)}), "not a convolution of images"),
    "not finite": (lambda s: s["last_conv.2.bias"].fill_(torch.nan), "not finite"),
    "whole numbers": (lambda s: s.update({"last_conv.2.bias": torch.ones(3, dtype=torch.int64)}), "torch.int64"),
    "widths": (lambda s: s.update({"first_conv.weight": torch.ones(24, 3, 3, 3)}), "not multiples of the first one"),
    "its class-conditional network": (lambda s: s.update({"class_embed.weight": torch.ones(3, 3)}), "UNetCategorial"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_the_network_is_refused_in_words(tmp_path, kind):
    state = random(XyfJason(Sizes())).state_dict()
    spoil, words = REFUSED[kind]
    spoil(state)
    with pytest.raises(CheckpointError, match=words) as caught:
        imported(saved(tmp_path, state))
    assert "weights.pt" in str(caught.value)


def test_relatives_of_guided_diffusion_are_refused_by_name(tmp_path):
    state = Guided(GuidedSizes(channels=6)).state_dict()
    with pytest.raises(CheckpointError, match="super-resolution network"):
        imported(saved(tmp_path, state))
    half = {k: v for k, v in Guided(GuidedSizes()).state_dict().items() if not k.startswith("output_blocks")}
    with pytest.raises(CheckpointError, match="classifier"):
        imported(saved(tmp_path, half))


def test_an_unknown_format_is_told_with_those_that_are_known(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        imported(saved(tmp_path, {"encoder.weight": torch.ones(3)}))
    for word in ("encoder.weight", "guided-diffusion", "xyfJASON", "pytorch-ddpm", "pytorch_diffusion", "first_conv"):
        assert word in str(caught.value)


def test_a_table_of_other_times_is_refused(tmp_path):
    state = PytorchDDPM(Sizes()).state_dict()
    _, found = imported(saved(tmp_path, state))
    assert found.config.diffusion.total_steps == 50
    state["time_embedding.timembedding.0.weight"] *= 0.9
    with pytest.raises(CheckpointError, match="table of times"):
        imported(saved(tmp_path, state))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model__dim": 64}, "model.dim: the network has 32, asked for is 64"),
        ({"model__padding": "right_below"}, "model.padding: the network has 'both'"),
        ({"model__name": "adm"}, "model.name"),
        ({"classes__count": 10}, "classes: the network has none"),
        ({"model__dimm": 3}, "did you mean dim"),
        ({"data__image_size": 9}, "cannot be halved"),
    ],
)
def test_what_is_given_must_agree_with_the_source(tmp_path, options, words):
    path = saved(tmp_path, XyfJason(Sizes()).state_dict())
    with pytest.raises(ConfigError, match=words):
        imported(path, **options)


def test_more_heads_than_one_of_xyfjasons_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="one head in the middle"):
        imported(saved(tmp_path, XyfJason(Sizes()).state_dict()), model__n_heads=2)
