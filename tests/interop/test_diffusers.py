"""Folders of diffusers, against diffusers itself: the network says the same, and what cannot be had is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from safetensors.torch import load_file
from tests.nn.test_unet import randomise
from torch import Tensor

from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import CheckpointError
from ddpm_ip.interop.diffusers import convert, recognises
from ddpm_ip.interop.schedulers import section_of
from ddpm_ip.nn.network import Cond
from ddpm_ip.schedule import Schedule

SMALL = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "block_out_channels": (8, 16)}
PLAIN = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
RESNET = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "block_out_channels": (8, 12, 24), "downsample_type": "resnet", "upsample_type": "resnet", "attention_head_dim": 4,
}  # fmt: skip
GOOGLE = {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}
SHIFT = {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4}
NETWORKS: dict[str, dict[str, Any]] = {
    "google": {**PLAIN, **GOOGLE, "layers_per_block": 2, "attention_head_dim": None},
    "defaults": {**PLAIN, "attention_head_dim": 8},
    "attention at two widths": {
        "down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2,
        "attention_head_dim": 4, "freq_shift": 1,
    },
    "classes": {**PLAIN, **GOOGLE, "num_class_embeds": 3},
    "learned variance": {**PLAIN, "out_channels": 6, "dropout": 0.25},
    "adm": {**RESNET, **SHIFT, "num_class_embeds": 3},
    "adm, sines first": {**RESNET, **SHIFT, "flip_sin_to_cos": False},
    "resnet alone": {**RESNET, "attn_norm_num_groups": 4},
    "scale_shift alone": {**PLAIN, **SHIFT, "attention_head_dim": 8},
}  # fmt: skip


def theirs(**settings: Any) -> UNet2DModel:
    network = UNet2DModel(**{**SMALL, **settings}).eval()
    randomise(network, 0)
    return network


def read(folder: Path, **given: Any) -> tuple[Config, dict[str, Tensor]]:
    assert recognises(folder)
    found = convert(folder, given)
    assert found.format == "diffusers"
    assert all(tensor.dtype == torch.float32 for tensor in found.tensors.values())
    return from_dict({**found.config, "data": {"name": "digits"}}), dict(found.tensors)


def assert_equal(folder: Path, network: UNet2DModel) -> Config:
    """Our network of a folder puts out what theirs does."""
    config, tensors = read(folder)
    ours = config.build_network().eval()
    ours.load_state_dict(tensors)
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(3, 3, 8, 8, generator=generator), torch.tensor([3, 71, 871])
    labels = None if config.classes is None else torch.tensor([0, 2, 1])
    with torch.no_grad():
        expected = network(x, t, class_labels=labels).sample
        out = ours(x, t) if labels is None else ours(x, t, Cond(labels))
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    return config


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_says_the_same(name: str, tmp_path: Path) -> None:
    network = theirs(**NETWORKS[name])
    learned = network.config.out_channels == 6
    scheduler = DDPMScheduler(variance_type="learned_range" if learned else "fixed_large")
    DDPMPipeline(network, scheduler).save_pretrained(tmp_path)
    config = assert_equal(tmp_path, network)
    assert config.diffusion.var_type == scheduler.config.variance_type
    assert config.model.name == ("adm" if "resnet" in name or "scale" in name or "adm" in name else "unet")
    assert config.model.dropout == network.config.dropout
    assert (config.classes and config.classes.count) == network.config.num_class_embeds


def test_folders_of_2022_are_read(tmp_path: Path) -> None:
    """All in one folder, a pickle of tensors, half precision, no newer keys, attention under its old names."""
    network = theirs(**NETWORKS["google"]).half().float()
    network.save_pretrained(tmp_path, safe_serialization=False)
    file = tmp_path / "diffusion_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        state = {key.replace(new, name): tensor.half() for key, tensor in state.items()}
    torch.save(state, file)
    assert any(".proj_attn." in key for key in state)
    config = json.loads((tmp_path / "config.json").read_text())
    later = ("add_attention", "class_embed_type", "num_class_embeds", "dropout", "downsample_type", "upsample_type")
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in later}))
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction").save_pretrained(tmp_path)
    read_back = assert_equal(tmp_path, network)
    assert (read_back.diffusion.beta_schedule, read_back.diffusion.objective) == ("cosine", "pred_v")


def test_a_network_by_itself_takes_what_is_given(tmp_path: Path) -> None:
    theirs(**PLAIN).save_pretrained(tmp_path)
    assert read(tmp_path, diffusion={"objective": "pred_x0"})[0].diffusion.objective == "pred_x0"
    found = convert(tmp_path, {})
    assert found.config["diffusion"]["var_type"] == "fixed_small"
    assert any("diffusion.total_steps is taken to be 1000" in sentence for sentence in found.assumed)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear", "variance_type": "fixed_large"},
        {"beta_schedule": "linear", "beta_start": 0.03, "beta_end": 0.03},
        {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012, "prediction_type": "sample"},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "variance_type": "fixed_small_log"},
    ],
)
def test_the_schedule_is_the_same(settings: dict[str, Any]) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=200, **settings)
    section, _, _ = section_of(scheduler.config, False, "here")
    kind = [section[key] for key in ("total_steps", "beta_schedule", "beta_start", "beta_end")]
    torch.testing.assert_close(Schedule(*kind).betas().float(), scheduler.betas, atol=1e-6, rtol=1e-5)
    config = from_dict({"data": {"name": "digits"}, "diffusion": section})
    objectives = {"epsilon": "pred_eps", "sample": "pred_x0", "v_prediction": "pred_v"}
    assert config.diffusion.objective == objectives[scheduler.config.prediction_type]
    assert config.diffusion.var_type == scheduler.config.variance_type.removesuffix("_log")


def test_what_a_scheduler_says_of_sampling_is_told() -> None:
    said = json.loads(DDIMScheduler(steps_offset=1, clip_sample=False).to_json_string())
    section, assumed, notes = section_of(said, False, "here")
    assert section["var_type"] == "fixed_small"
    assert "says no variance" in " ".join(assumed)  # which is an assumption, and what follows is said
    told = " ".join(notes)
    for part in ("--clip none", "--spacing uniform-leading", "steps_offset 1"):
        assert part in told
        assert part not in " ".join(assumed)
    solver = json.loads(DPMSolverMultistepScheduler().to_json_string())
    assert section_of(solver, True, "here")[0]["var_type"] == "learned_range"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"trained_betas": [0.1] * 10}, "trained_betas"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"variance_type": "learned"}, "variance_type"),
        ({"variance_type": "learned_range"}, "variance_type"),
        ({"_class_name": "KarrasVeScheduler"}, "_class_name"),
        ({"num_train_timesteps": True}, "num_train_timesteps"),
        ({"beta_end": "much"}, "beta_end"),
        ({"prediction_type": ["epsilon"]}, "prediction_type"),
    ],
)
def test_a_scheduler_that_does_not_fit_is_refused_by_the_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=f"here: {key} is .*cannot be imported"):
        section_of({"_class_name": "DDPMScheduler", **settings}, False, "here")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"center_input_sample": True}, "center_input_sample"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"mid_block_type": None}, "mid_block_type"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor"),
        ({"downsample_padding": 2}, "downsample_padding"),
        ({"upsample_type": "resnet"}, "down_block_types"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        ({"add_attention": False}, "add_attention"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"num_class_embeds": 2.5}, "num_class_embeds"),
        ({"freq_shift": 0.5}, "freq_shift"),
        ({"out_channels": 4}, "out_channels"),
        ({"block_out_channels": [8, 12]}, "block_out_channels"),
        ({"block_out_channels": [8, 16, 16]}, "block_out_channels"),
        ({"attention_head_dim": 3}, "attention_head_dim"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "up_block_types"),
        ({"_class_name": "UNet2DConditionModel"}, "_class_name"),
        ({"cross_attention_dim": 768}, "cross_attention_dim"),
        ({"layers_per_block": "two"}, "layers_per_block"),
        ({"norm_eps": -1}, "norm_eps"),
        ({"norm_num_groups": 3}, "num_groups"),
        ({"layers_per_block": 2}, "tensor"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_the_key(
    settings: dict[str, Any], key: str, small: Path, tmp_path: Path
) -> None:
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((small / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{key}|{key}.*config\.json"):
        convert(tmp_path, {})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    theirs(**PLAIN).save_pretrained(folder)
    return folder


def test_what_is_not_a_folder_of_diffusers_is_not_recognised(tmp_path: Path, trained: Path, small: Path) -> None:
    assert not recognises(tmp_path)
    assert not recognises(tmp_path / "nowhere")
    assert not recognises(trained)
    assert not recognises(small / "config.json")
    (tmp_path / "config.json").write_text("[1]")
    assert not recognises(tmp_path)


def test_weights_that_are_absent_or_in_several_files_are_told(small: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((small / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        convert(tmp_path, {})
    name = "diffusion_pytorch_model.fp16.safetensors"
    (tmp_path / name).write_bytes((small / "diffusion_pytorch_model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=f"only {name}: rename"):
        convert(tmp_path, {})
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="in several files"):
        convert(tmp_path, {})


def test_tensors_are_those_of_the_file(small: Path) -> None:
    """Nothing is lost on the way: as many numbers, and the same sum of squares."""
    _, ours = read(small)
    there = load_file(small / "diffusion_pytorch_model.safetensors")
    assert sum(t.numel() for t in ours.values()) == sum(t.numel() for t in there.values())
    mine, them = (sum(float(t.double().square().sum()) for t in state.values()) for state in (ours, there))
    assert mine == pytest.approx(them, rel=1e-12)
