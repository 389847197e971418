"""What is exported: diffusers loads it and makes the same images, it comes back bit for bit, one file is a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.nn.test_unet import randomise
from tests.tiny import contents, tiny, tree
from torch import Tensor

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.config import Config, from_dict
from ddpm_ip.draws import Draws
from ddpm_ip.errors import CheckpointError, ConfigError, UserError
from ddpm_ip.interop.diffusers import convert
from ddpm_ip.interop.export import ExportOptions, export
from ddpm_ip.nn.network import Cond
from ddpm_ip.run.weights import Weights, find_weights
from ddpm_ip.sampler import Ancestral, walk
from ddpm_ip.sampler.correction import Clip

SEED, SHAPE = 5, (1, 8, 8)
ROWS = torch.arange(3)
TRAILING = {"spacing": "uniform-trailing"}
ADM = {"name": "adm", "in_channels": 1, "dim": 8, "dim_mults": [1, 1.5], "use_attn": [False, True]}
ADM |= {"num_res_blocks": 1, "head_channels": 4, "num_groups": 4, "dropout": 0.0}


def config_of(model: dict[str, Any] | None = None, classes: int | None = None, **diffusion: Any) -> Config:
    plain = {**tree(model), "diffusion": {"total_steps": 50, **diffusion}}
    if model is not None and "name" in model:
        plain["model"] = model
    if classes is not None:
        plain["classes"] = {"count": classes, "dropout": 0.0}
    return from_dict(plain)


def random_weights(config: Config) -> Weights:
    """Of every parameter random; what comes out is about zero, or all would be clipped."""
    network = config.build_network()
    randomise(network, 0)
    with torch.no_grad():
        network.conv_out.bias.mul_(0.1)
        network.conv_out.weight.mul_(0.5)
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    return Weights(tensors, "0" * 64, True, None, "the test")


def exported(config: Config, folder: Path, **options: Any) -> Weights:
    weights = random_weights(config)
    export(config, weights, Path("nowhere"), folder, ExportOptions(**options))
    return weights


def our_images(config: Config, weights: Weights, times: list[int], variance: str) -> Tensor:
    network = config.build_network().eval()
    network.load_state_dict(weights.tensors)
    plan = Ancestral(variance).plan(config.diffusion.schedule, times)
    *_, last = walk(plan, config.denoiser(network), SEED, ROWS, SHAPE, [Clip(mode=config.sampling.clip)])
    return last.xt


class OurNoise:
    """Stands in for diffusers' random numbers: the noise that our walk draws at each time."""

    def __init__(self, times: list[int]) -> None:
        self.times = iter(times)

    def __call__(self, shape: Any, **kwargs: Any) -> Tensor:
        drawn = Draws(SEED, next(self.times), ROWS).noise(SHAPE)
        assert drawn.shape == torch.Size(shape)
        return drawn


def their_images(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, list[int]]:
    """By their own pipeline, from our x_T and with our noise; and the times that it visited."""
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler.set_timesteps(steps)
    times = pipeline.scheduler.timesteps.tolist()
    start = Draws(SEED, 0, ROWS).start(SHAPE)
    monkeypatch.setattr("diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", lambda shape, **kwargs: start)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", OurNoise(times))
    found = pipeline(batch_size=len(ROWS), num_inference_steps=steps, output_type="pt").images
    return found, times


@pytest.mark.parametrize(
    ("diffusion", "sampling", "steps"),
    [
        ({"var_type": "fixed_large"}, {}, 50),
        ({"var_type": "fixed_small"}, {}, 50),
        ({"var_type": "fixed_large", "beta_schedule": "cosine"}, {}, 50),
        ({"var_type": "fixed_small", "beta_schedule": "cosine", "objective": "pred_v"}, {}, 50),
        ({"var_type": "learned_range"}, {}, 50),
        (
            {"var_type": "learned_range", "beta_schedule": "cosine", "objective": "pred_v"},
            {"spacing": "uniform-trailing"},
            10,
        ),
        ({"beta_schedule": "quad", "objective": "pred_x0"}, {"sampler": {"var_type": "fixed_small"}}, 10),
        ({"beta_schedule": "const"}, {"clip": "none", "spacing": "uniform-leading"}, 10),
        ({"total_steps": 1000}, {}, 25),
    ],
)
def test_their_pipeline_makes_our_images(
    diffusion: dict[str, Any], sampling: dict[str, Any], steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(**diffusion)
    config = from_dict({**config.to_dict(), "sampling": {**sampling, "steps": steps}})
    weights = exported(config, tmp_path / "out")
    theirs, times = their_images(tmp_path / "out", steps, monkeypatch)
    assert times == config.sampling.times(config.diffusion.schedule)
    variance = config.sampling.filled(config.diffusion.var_type).sampler.var_type
    ours = our_images(config, weights, times, variance)
    assert ours.clamp(-1, 1).std() > 0.1
    torch.testing.assert_close(theirs, (ours / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)


NETWORKS: dict[str, tuple[dict[str, Any], int | None]] = {
    "google": ({}, None),
    "classes": ({}, 3),
    "options": ({"padding": "both", "norm_eps": 1e-5, "head_channels": 4, "freq_shift": 0, "dropout": 0.25}, None),
    "adm": (ADM, 3),
    "adm without": ({**ADM, "resblock_updown": False, "norm_eps": 1e-4}, None),
    "adm, resblocks alone": ({**ADM, "scale_shift_norm": False}, None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_goes_out_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, classes = NETWORKS[name]
    config = config_of(model, classes, beta_schedule="cosine", objective="pred_v", var_type="fixed_small")
    weights = exported(config, tmp_path / "out")
    found = convert(tmp_path / "out", {})
    back = from_dict({**found.config, "data": {"name": "digits"}})
    assert (back.model, back.diffusion, back.classes) == (config.model, config.diffusion, config.classes)
    assert found.tensors.keys() == weights.tensors.keys()
    assert all(torch.equal(found.tensors[key], tensor) for key, tensor in weights.tensors.items())


def test_heads_in_the_old_order_are_the_same_network(tmp_path: Path) -> None:
    """ADM's legacy order of queries, keys and values is not theirs: the channels change places, the output does not."""
    config = config_of({**ADM, "attention_order": "legacy"}, 3)
    weights = exported(config, tmp_path / "out")
    network = config.build_network().eval()
    network.load_state_dict(weights.tensors)
    unet = DDPMPipeline.from_pretrained(tmp_path / "out").unet
    x, t, labels = torch.randn(2, 1, 8, 8), torch.tensor([3, 40]), torch.tensor([2, 0])
    with torch.no_grad():
        expected = network(x, t, Cond(labels))
        torch.testing.assert_close(unet(x, t, class_labels=labels).sample, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ({"dim_mults": [2, 2]}, r"dim_mults\[0\] 2"),
        ({"dim_mults": [1, 2], "use_attn": [True, True], "n_heads": 2}, "n_heads 2 at several widths"),
    ],
)
def test_a_network_without_an_equal_is_refused_with_the_other_format(
    model: dict[str, Any], what: str, tmp_path: Path
) -> None:
    config = config_of(model)
    with pytest.raises(ConfigError, match=f"no network with model.{what}.*--format safetensors"):
        exported(config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    exported(config, tmp_path / "out", format="safetensors")
    assert sorted(contents(tmp_path / "out")) == ["README.md", "model.safetensors"]


def test_a_folder_of_diffusers_is_sampled_and_imported(trained: Path, tmp_path: Path) -> None:
    """Out and in again: the command makes the run's images of it, and a run of it is the same network."""
    out, run = tmp_path / "out", tmp_path / "again"
    assert main(["export", str(trained), "-o", str(out)]) == 0
    assert main(["import", str(out), "-e", str(run)]) == 0
    images = []
    for source in (trained, out, run):
        samples = tmp_path / f"samples-{source.name}"
        wanted = ["--n_samples", "2", "--save_dir", str(samples), "--respace_steps", "3"]
        assert main(["sample", "--weights", str(source), *wanted]) == 0
        images.append({k: v for k, v in contents(samples).items() if k[0].isdigit()})
    assert images[0] == images[1] == images[2]
    own, back = ip.load(trained).config, ip.load(run).config
    assert (back.diffusion, back.data.image_size) == (own.diffusion, 8)
    assert back.model == own.model


# --- one file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the fixture as one file, far from the run."""
    out = tmp_path_factory.mktemp("single") / "model"
    assert main(["export", str(trained), "-o", str(out), "--format", "safetensors", "--licence", "cc0-1.0"]) == 0
    return out / "model.safetensors"


def test_one_file_is_a_whole_model(single: Path, trained: Path, tmp_path: Path) -> None:
    """`sample --weights FILE` alone makes the run's images; so does Python."""
    for source, name in ((single, "a"), (trained, "b")):
        wanted = ["--n_samples", "3", "--save_dir", str(tmp_path / name), "--respace_steps", "4"]
        assert main(["sample", "--weights", str(source), *wanted]) == 0
    images = [{k: v for k, v in contents(tmp_path / name).items() if k[0].isdigit()} for name in "ab"]
    assert images[0] == images[1]
    assert len(images[0]) == 3
    run, own = ip.load(single), ip.load(trained)
    assert (run.step, run.config) == (own.step, own.config)
    assert (run.sample(2, steps=3).images == own.sample(2, steps=3).images).all()
    assert find_weights(single).averaged is True


def test_the_header_says_it_and_the_tensors_are_the_run_s(single: Path, trained: Path) -> None:
    weights = find_weights(trained)
    with safe_open(single, "pt") as file:
        texts = file.metadata()
    assert texts["format"] == "pt"
    assert json.loads(texts["ddpm_ip.config"]) == weights.checkpoint.meta["config"]
    assert (texts["ddpm_ip.step"], texts["ddpm_ip.averaged"]) == ("6", "true")
    assert (texts["ddpm_ip.weights"], texts["ddpm_ip.version"]) == (weights.sha256, ip.__version__)
    assert all(torch.equal(tensor, weights.tensors[key]) for key, tensor in load_file(single).items())


def test_another_network_than_the_file_s_is_refused(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--n_samples", "1", "--save_dir", "never", "--diffusion.total_steps", "77"]
    assert main(["sample", "--weights", str(single), *wanted]) == 2
    assert "diffusion.total_steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"config": "{"}, "not valid JSON"),
        ({"config": "[1]"}, "not an object of keys and values"),
        ({"config": "[" * 5000}, "nested"),
        ({"config": "{}", "step": "-3"}, "step -3"),
        ({"config": "{}", "schema": "2"}, "newer version"),
        ({"config": "{}", "schema": "{}"}, "schema"),
    ],
)
def test_a_header_of_a_stranger_is_one_sentence(texts: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "strange.safetensors"
    save_file({"x": torch.zeros(1)}, path, {f"ddpm_ip.{key}": text for key, text in texts.items()})
    with pytest.raises(UserError, match=message):
        find_weights(path)


def test_headers_of_others_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"format": "pt", "config": "{}"})
    assert find_weights(path).header is None
    with pytest.raises(ConfigError, match="belongs to no folder of a run"):
        find_weights(path).trained(path)
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        find_weights(path)


# --- the folder ------------------------------------------------------------------------------------------------------


def test_nothing_is_written_over(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("mine")
    assert main(["export", str(trained), "-o", str(tmp_path)]) == 2
    assert "is there already, and nothing of it was touched" in capsys.readouterr().err
    assert contents(tmp_path) == {"kept": b"mine"}
    (tmp_path / "empty").mkdir()
    assert main(["export", str(trained), "-o", str(tmp_path / "empty")]) == 0
    names = {"README.md", "model_index.json", "scheduler/scheduler_config.json", "unet/config.json"}
    assert contents(tmp_path / "empty").keys() == names | {"unet/diffusion_pytorch_model.safetensors"}


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddpm_ip.interop.export.save_file", full)
    with pytest.raises(UserError, match="No space left"):
        exported(tiny(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not those of this configuration"):
        export(tiny({"dim": 16}), random_weights(tiny()), tmp_path, tmp_path / "out", ExportOptions())
    assert list(tmp_path.iterdir()) == []


# --- the hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """A hub that remembers what it is asked, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, list[tuple[Any, ...]]()

    def create_repo(self, name: str, **settings: Any) -> Any:
        if self.error:
            raise self.error
        self.asked.append((name, settings))

        class Address(str):
            repo_id = f"me/{name.rpartition('/')[2]}"

        return Address(f"https://hub/{name}")

    def upload_folder(self, **settings: Any) -> None:
        self.asked.append((settings["repo_id"], sorted(contents(Path(settings["folder_path"])))))


def test_push_uploads_the_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert main(["export", str(trained), "-o", str(tmp_path / "out"), "--push", "me/tiny"]) == 0
    (name, settings), (uploaded, files) = hub.asked
    assert (name, settings["exist_ok"], uploaded) == ("me/tiny", True, "me/tiny")
    assert files == sorted(contents(tmp_path / "out"))
    assert "https://hub/me/tiny" in capsys.readouterr().out
    assert "\n# tiny\n" in (tmp_path / "out/README.md").read_text()


def test_a_push_that_fails_says_how_to_go_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(ConnectionError("no route")))
    assert main(["export", str(trained), "-o", str(tmp_path / "out"), "--push", "me/tiny"]) == 1
    said = capsys.readouterr().err
    assert re.search(rf"{tmp_path}/out is whole, and was not pushed.*no route.*hf upload me/tiny {tmp_path}/out", said)
    assert (tmp_path / "out/model_index.json").is_file()


def test_without_huggingface_hub_nothing_is_begun(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(trained), "-o", str(tmp_path / "out"), "--push", "not a name"]) == 2
    assert "--push 'not a name': a model is called USER/MODEL" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert main(["export", str(trained), "-o", str(tmp_path / "out"), "--push", "me/tiny"]) == 2
    assert 'pip install -e ".[hub]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
