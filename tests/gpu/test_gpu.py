"""Checks that need a CUDA GPU: `pytest tests/gpu -m gpu`, by hand. CI has none."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from tests.sampler import oracle, test_graph, test_walk
from tests.tiny import step_folder
from torch import Tensor

from ddpm_ip.config import Config, from_dict
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.order import order
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import Diverged, OutOfMemory
from ddpm_ip.images import grid
from ddpm_ip.nn.fused import check
from ddpm_ip.nn.fused import norm as norm_kernels
from ddpm_ip.nn.fused import operations as fused
from ddpm_ip.nn.fused.launch import compile_together
from ddpm_ip.nn.network import Cond
from ddpm_ip.nn.unet import UNet
from ddpm_ip.run.tensors import first_not_finite
from ddpm_ip.sample.generator import Generator, preview
from ddpm_ip.sample.program import SampleOptions, default_block, fitting_block, image_bytes, load_model, sample
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, respace, walk
from ddpm_ip.sampler.correction import AnyCorrection, Auto, BandGains, Clip, EpsilonScaling, Guidance
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule
from ddpm_ip.train import feed
from ddpm_ip.train.graph import CapturedStep
from ddpm_ip.train.loop import build, train
from ddpm_ip.variants import variants

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the deterministic runs; read when cuBLAS starts


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What one test sets for the whole process is gone in the next."""
    AcceleratorState._reset_state(True)
    yield
    torch.use_deterministic_algorithms(False)


def tiny(**training: Any) -> Config:
    model = {"in_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True], "num_groups": 8}
    base = {"n_steps": 40, "batch_size": 64, "flip": False, "sample_freq": 0, "save_freq": 20, "print_freq": 10}
    return from_dict({"data": {"name": "digits"}, "model": model, "train": {**base, **training}})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "ckpt").glob("step*"))[-1] / "ema.safetensors")


def test_the_integers_are_the_cpus_and_the_normals_agree() -> None:
    rows = torch.arange(64)
    here, there = Draws(3, 7, rows), Draws(3, 7, rows.cuda())
    assert torch.equal(here.bits(Stream.EPS, 100), there.bits(Stream.EPS, 100).cpu())
    torch.testing.assert_close(here.eps((3, 8, 8)), there.eps((3, 8, 8)).cpu(), rtol=1e-5, atol=1e-5)


def test_more_rows_than_one_launch_takes_are_drawn_in_several() -> None:
    for rows in (65_535, 65_536, 150_000):
        found = Draws(3, 5, torch.arange(rows, device="cuda")).bits(Stream.EPS, 5).cpu()
        assert torch.equal(found, Draws(3, 5, torch.arange(rows)).bits(Stream.EPS, 5))


@pytest.mark.parametrize("fast", ["auto", "off"])
def test_a_batch_that_no_gpu_takes_is_told_as_too_little_memory(tmp_path: Path, fast: str) -> None:
    with pytest.raises(OutOfMemory, match=r"4000000 images of 8 x 8 pixels .*--train\.micro_batch 2000000"):
        train(tiny(n_steps=1, batch_size=4_000_000, fast=fast), tmp_path)


def test_resume_is_bit_exact_with_deterministic_kernels(tmp_path: Path) -> None:
    config = tiny(deterministic=True)
    train(config, tmp_path / "straight")
    train(from_dict({**config.to_dict(), "train": {**config.to_dict()["train"], "n_steps": 20}}), tmp_path / "resumed")
    train(config, tmp_path / "resumed", "latest")
    a, b = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("resident", [0, 4 << 30], ids=["streamed", "resident"])
def test_staged_images_arrive_whole_while_the_device_is_busy(monkeypatch: pytest.MonkeyPatch, resident: int) -> None:
    monkeypatch.setattr(feed, "RESIDENT_BYTES", resident)
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3, 32, 32), dtype=np.uint8)
    source = feed.Feed(ImageSet(pixels, None, "random", ""), 0, 512, range(512), True, torch.device("cuda"))
    sums = []
    for step in range(50):
        batch = source.stage(step).pixels
        torch.cuda._sleep(10_000_000)  # milliseconds: the host runs far ahead
        sums.append(batch.long().sum((1, 2, 3)))
        del batch  # its memory may be used again, but not before the sum was taken
    source.close()
    for step, found in enumerate(sums):
        wanted = pixels[order(0, step * 512 + np.arange(512), len(pixels))].sum((1, 2, 3), dtype=np.int64)
        assert np.array_equal(found.cpu().numpy(), wanted), step


@pytest.mark.parametrize("setting", [{"fast": "off"}, {"mixed_precision": "no"}, {"mixed_precision": "bf16"}], ids=str)
def test_every_path_learns_the_same(tmp_path: Path, reference: list[float], setting: dict[str, Any]) -> None:
    """The loss over 500 steps against the plain path in float32: the curves differ by less than their own noise."""
    curve = losses(train_anew(tiny(n_steps=500, **setting), tmp_path))
    assert np.mean(curve[-10:]) == pytest.approx(np.mean(reference[-10:]), rel=0.04)
    assert np.mean(curve[:10]) == pytest.approx(np.mean(reference[:10]), rel=0.04)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(train_anew(tiny(n_steps=500, fast="off", mixed_precision="no"), tmp_path_factory.mktemp("reference")))


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def train_anew(config: Config, run: Path, resume: str | None = None) -> Path:
    AcceleratorState._reset_state(True)  # Accelerate refuses another precision in the same process
    train(config, run, resume)
    return run


def said(run: Path) -> str:
    return (run / "log.txt").read_text()


def test_the_fast_path_is_the_default_and_off_is_off(tmp_path: Path) -> None:
    assert "fast path (bf16): fused kernels" in said(train_anew(tiny(n_steps=2), tmp_path / "auto"))
    assert "fast path off (train.fast is off)" in said(train_anew(tiny(n_steps=2, fast="off"), tmp_path / "off"))


def test_gradient_checkpointing_within_the_graph_is_the_same_training_in_less_memory(tmp_path: Path) -> None:
    """With dropout, whose masks are a function of keys."""
    found, peaks = [], []
    for wanted in (False, True):
        config = tiny(n_steps=10, batch_size=512, deterministic=True, gradient_checkpointing=wanted)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run = train_anew(config, tmp_path / str(wanted))
        peaks.append(torch.cuda.max_memory_allocated())
        assert "each step one CUDA graph" in said(run)
        found.append(weights(run))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-3, atol=1e-5)
    assert peaks[1] < peaks[0]


def test_what_cannot_be_captured_falls_back_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = said(train_anew(tiny(n_steps=2, mixed_precision="fp16"), tmp_path / "fp16"))
    assert "fast path off (mixed_precision fp16 needs a loss scaler" in text
    right = norm_kernels.norm_forward
    monkeypatch.setattr(norm_kernels, "norm_forward", lambda *a: (right(*a)[0] * 1.3, right(*a)[1]))
    text = said(train_anew(tiny(n_steps=2), tmp_path / "wrong"))
    assert "fast path off (FastPathError: the fused network differs from the plain one" in text
    assert "finished: 2 steps" in text


@pytest.mark.parametrize("fast", ["auto", "off"])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path, fast: str) -> None:
    """No step waits for the GPU, so the save is where it shows; channels-last weights, float32 and the moments."""
    with pytest.raises(Diverged, match="finite"):
        train_anew(tiny(n_steps=8, save_freq=1, print_freq=8, fast=fast, optim={"lr": 1e39}), tmp_path)
    assert not list(tmp_path.rglob("step*"))
    tensors = {"a": torch.ones(3, 4, 5, 6, device="cuda").to(memory_format=torch.channels_last), "b": torch.ones(2)}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for bad in (float("inf"), -float("inf"), float("nan")):
            other = tensors["a"].to(dtype, copy=True)
            assert first_not_finite({**tensors, "c": other}) is None
            other[2, 1, 3, 5] = bad
            assert first_not_finite({**tensors, "c": other}) == "c"


@pytest.mark.parametrize("first", ["auto", "off"])
def test_a_run_can_change_its_path(tmp_path: Path, first: str) -> None:
    """A checkpoint of one path continues on the other; in float32 without dropout they compute the same."""
    still = {"mixed_precision": "no", "optim": {"eps": 1e-3}}  # a large eps: Adam divides rounding noise

    def config(n_steps: int, fast: str) -> Config:
        tree = tiny(**still, n_steps=n_steps, fast=fast).to_dict()
        return from_dict({**tree, "model": {**tree["model"], "dropout": 0.0}})

    train_anew(config(40, first), tmp_path / "straight")
    train_anew(config(20, first), tmp_path / "changed")
    train_anew(config(40, "off" if first == "auto" else "auto"), tmp_path / "changed", "latest")
    a, b = weights(tmp_path / "straight"), weights(tmp_path / "changed")
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 2e-4


def test_micro_batches_compute_the_whole_batch_with_its_dropout(tmp_path: Path) -> None:
    """The masks of an image are its own, so they are the same in any micro-batch."""
    settings = {"n_steps": 10, "save_freq": 10, "mixed_precision": "no", "optim": {"lr": 1e-3, "eps": 1e-3}}
    for micro in (0, 32, 24):
        train_anew(tiny(**settings, micro_batch=micro), tmp_path / str(micro))
    whole = weights(tmp_path / "0")
    for micro in (32, 24):
        other = weights(tmp_path / str(micro))
        assert max(float((whole[k] - other[k]).abs().max()) for k in whole) < 2e-4


@pytest.mark.parametrize("objective", ["pred_eps", "pred_x0", "pred_v"])
def test_every_objective_and_a_learned_variance_are_captured(tmp_path: Path, objective: str) -> None:
    tree = tiny(n_steps=4).to_dict()
    tree["diffusion"] |= {"objective": objective, "var_type": "learned_range"}
    run = train_anew(from_dict({**tree, "perturbation": {"name": "input", "gamma": 0.1}}), tmp_path)
    assert "fast path (bf16)" in said(run)
    assert all(np.isfinite(losses(run)))


@pytest.mark.parametrize("decay", [0.9999, 0.3])
def test_the_average_warms_up_inside_the_graph(decay: float) -> None:
    """Against float64 from the weights of each step; the graph reads its weight again at every replay."""
    AcceleratorState._reset_state(True)
    config, accelerator = tiny(ema_decay=decay, ema_warmup=True, optim={"lr": 1e-2}), start_engine("bf16")
    state, step = build(config, config.data.open(progress=False), accelerator)
    assert isinstance(step, CapturedStep)
    expected = [p.detach().double() for p in state.ema.network.parameters()]
    for n in range(1, 9):
        step()
        kept = min(decay, (1 + n) / (10 + n))
        moved = zip(expected, state.network.parameters(), strict=True)
        expected = [kept * old + (1 - kept) * new.detach().double() for old, new in moved]
    for found, wanted in zip(state.ema.network.parameters(), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_several_averages_and_those_of_power_functions_inside_the_graph() -> None:
    """Each against float64 from the weights of each step, with the shares that its own formula gives."""
    AcceleratorState._reset_state(True)
    config = tiny(ema_decay=[0.9, 0.5], ema_power=[0.1], optim={"lr": 1e-2}, lr_schedule={"name": "linear"})
    state, step = build(config, config.data.open(progress=False), start_engine("bf16"))
    assert isinstance(step, CapturedStep)
    seen = [[p.detach().double() for p in state.network.parameters()]]
    for _ in range(5):
        step()
        seen.append([p.detach().double().clone() for p in state.network.parameters()])
    gamma = state.more["power_1"].gamma
    power = [0.0] + [(n / 5) ** (gamma + 1) - ((n - 1) / 5) ** (gamma + 1) for n in range(1, 6)]
    shares = [[d**5] + [(1 - d) * d ** (5 - n) for n in range(1, 6)] for d in (0.9, 0.5)] + [power]
    for average, own in zip(state.averages, shares, strict=True):
        for i, found in enumerate(average.network.parameters()):
            wanted = sum(share * weights[i] for share, weights in zip(own, seen, strict=True))
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_resume_is_bit_exact_with_a_warm_up(tmp_path: Path) -> None:
    config = tiny(deterministic=True, ema_warmup=True)
    train_anew(config, tmp_path / "straight")
    train_anew(from_dict(config.to_dict(), overrides={"train.n_steps": 20}), tmp_path / "resumed")
    train_anew(config, tmp_path / "resumed", "latest")
    a, b = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_step_holds_everything_that_its_graph_reads() -> None:
    """Whatever else is let go and overwritten, the replay gives what it gave."""

    def step_and_loss(disturb: bool) -> list[float]:
        AcceleratorState._reset_state(True)
        config, accelerator = tiny(mixed_precision="bf16", deterministic=True), start_engine("bf16")
        _, step = build(config, config.data.open(progress=False), accelerator)
        found = []
        for _ in range(3):
            if disturb:
                gc.collect()
                torch.cuda.empty_cache()
                junk = [
                    torch.full((n,), float("nan"), device="cuda") for n in (100, 10_000, 10_000_000) for _ in range(50)
                ]
                del junk
            found.append(float(step()[0]))
        return found

    assert step_and_loss(True) == step_and_loss(False)


def test_judging_beside_the_training_does_not_disturb_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread works the numbers out while graphs are captured (for the samples) and replayed: the same weights."""
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    config = tiny(deterministic=True, sample_freq=10)
    train(config, tmp_path / "alone")
    chosen = {"every": 5, "n_samples": 300, "steps": 5, "metrics": ["fid", "kid", "prc"]}
    tree = config.to_dict()
    watched = from_dict({**tree, "train": {**tree["train"], "eval": chosen}})
    train(watched, tmp_path / "watched")
    assert "fast path (bf16): fused kernels, each step one CUDA graph" in said(tmp_path / "watched")
    lines = (tmp_path / "watched" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(5, 41, 5)]
    a, b = weights(tmp_path / "alone"), weights(tmp_path / "watched")
    assert all(torch.equal(a[k], b[k]) for k in a)


CIFAR = {"data": {"name": "cifar10"}}


def autocast_errors(network: torch.nn.Module) -> tuple[float, float]:
    """What `check.compare` finds, of the plain network under autocast: the errors that its users live with."""
    plain = check._filled(network)

    def half(x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return plain(x, t, cond)

    return check._errors(plain, half, [(p, p) for p in plain.parameters()], check._probe(plain, (32, 32), 8))


def test_the_network_of_the_paper_fused_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 2e-5 in float32; in bf16 no worse than the plain network under autocast, on the same weights."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = from_dict(CIFAR).build_network().cuda()
    single, half = (check.compare(network, dtype, (32, 32)) for dtype in (torch.float32, torch.bfloat16))
    theirs = autocast_errors(network)
    print(f"float32 {single}, bf16 {half}, autocast {theirs}")
    assert max(single) < 2e-5
    assert half[0] <= theirs[0]
    assert half[1] <= theirs[1]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 6, 10), (4, 12, 8), (5, 10, 6), (16, 8, 40)])
def test_the_fused_network_takes_any_sides_and_channels(channels: int, height: int, width: int) -> None:
    """Halved, some sides are odd. Within the limits in both precisions, or compare raises."""
    torch.manual_seed(0)
    network = UNet(channels, channels, dim=32, dim_mults=(1, 2), use_attn=(True, True), num_groups=8).cuda()
    for dtype in (torch.float32, torch.bfloat16):
        check.compare(network, dtype, (height, width))


def test_images_that_are_no_squares_on_the_fast_path(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 5, 6, 10), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, layout="channels_first")
    plain = tiny(mixed_precision="no").to_dict()
    data = {"name": "npz", "root": str(tmp_path / "a.npz"), "image_size": [6, 10]}
    config = from_dict({**plain, "data": data, "model": {**plain["model"], "in_channels": 5}})
    run = train_anew(config, tmp_path / "run")
    assert "fast path (" in said(run)
    generator = generator_of(config, run, Sampling(Ancestral("fixed_small"), steps=5, block=8), "no")
    assert generator.graph is not None
    assert generator.images(0).shape == (8, 5, 6, 10)


def test_a_networks_kernels_are_compiled_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of backward, too, and so that the launches find them."""
    compiled = []
    monkeypatch.setattr(triton.knobs.compilation, "listener", lambda src, **_: compiled.append(src.name))
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    network = UNet(3, 3, dim=48, dim_mults=(1, 2), use_attn=(False, True), num_res_blocks=1, num_groups=8).cuda()
    shadow = fused.Shadow(network.eval(), torch.bfloat16)  # without dropout, which would want keys

    def work() -> None:
        shadow(torch.zeros(4, 3, 16, 16, device="cuda"), torch.zeros(4, device="cuda").long()).float().sum().backward()

    compile_together(work)
    together = len(compiled)
    assert {"_norm_forward", "_norm_backward", "_add_product", "_fold"} <= set(compiled)
    work()
    assert len(compiled) == together


SMALL = Sampling(Ancestral("fixed_small"), steps=20, block=64)


def generator_of(config: Config, run: Path, sampling: Sampling, precision: str | None) -> Generator:
    AcceleratorState._reset_state(True)
    return load_model(config, weights(run), start_engine(precision)).generator(sampling)


def test_samples_of_both_paths_are_the_same_pictures(tmp_path: Path) -> None:
    run = train_anew(tiny(n_steps=300, mixed_precision="no"), tmp_path / "run")
    pictures = {}
    for fast in ("off", "auto"):
        config = tiny(fast=fast, mixed_precision="no")
        generator = generator_of(config, run, SMALL, "no")
        assert (generator.graph is not None) is (fast == "auto")
        pictures[fast] = generator.images(0).astype(int)
        states = [(s.t, s.xt.clone(), None if s.x0 is None else s.x0.clone()) for s in generator.states(0)]
        assert [t for t, _, _ in states] == generator.plan.times()
        assert states[0][2] is None
    assert np.abs(pictures["auto"] - pictures["off"]).mean() < 1


def test_a_network_with_other_weights_makes_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prototype that made black images: the graph reads something else than the weights."""
    run = train_anew(tiny(n_steps=100, mixed_precision="no"), tmp_path / "run")

    class Broken(fused.Shadow):
        def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
            return super().__call__(x, t, cond) * 0

    monkeypatch.setattr(fused, "Shadow", Broken)
    generator = generator_of(tiny(), run, Sampling(block=8), "no")
    assert generator.graph is None


def ulps(a: Tensor, b: Tensor) -> int:
    """The largest distance in units in the last place; float32 of one sign where they differ by more than rounding."""
    gap = (a.view(torch.int32).long() - b.view(torch.int32).long()).abs()
    return int(torch.where((a - b).abs() <= 1e-30, 0, gap).max())


@pytest.mark.parametrize("name", [*test_graph.PLANS, "ddim", "dpm_solver", "learned_range"])
def test_the_captured_walk_is_the_plain_one(name: str) -> None:
    """To the last bit on the same GPU, with a network of sums and products; a learned variance within rounding."""
    schedule, seed, corrections = Schedule(), 2**40 + 7, [EpsilonScaling(1.01), Clip()]
    learned = name == "learned_range"
    network = test_walk.exact_with_variance if learned else test_walk.exact
    denoiser = Denoiser(network, schedule, "pred_eps", learned)
    samplers = {"ddim": DDIM(0.5), "dpm_solver": DPMSolver(), "learned_range": Ancestral(name)}
    plan = samplers[name].plan(schedule, respace(1000, 12)) if name in samplers else test_graph.PLANS[name](schedule)
    rows, shape = torch.arange(64, device="cuda"), (3, 32, 32)
    graph = Graph(denoiser, corrections, Ancestral("fixed_large").plan(schedule, [5]), 64, shape, rows.device)
    graph.load(plan, corrections, seed)
    found = [(s.xt.clone(), None if s.x0 is None else s.x0.clone()) for s in graph(rows)]
    plain = list(walk(plan, denoiser, seed, rows, shape, corrections))
    for (xt, x0), state in zip(found, plain, strict=True):
        if learned:  # the exponential of one kernel, and of another
            torch.testing.assert_close(xt, state.xt, rtol=1e-5, atol=1e-5)
            continue
        assert ulps(xt, state.xt) == 0
        assert x0 is None or ulps(x0, state.x0) == 0


GAINS = BandGains((1.05, 0.9), (((900, 1.1), (100, 1.2)), 0.95, 1.1))
CORRECTIONS = {  # guidance needs classes: tests/gpu/test_classes.py; auto stands for others
    cls.__name__: [GAINS if cls is BandGains else cls()]
    for cls in variants(AnyCorrection)
    if cls not in (Auto, Guidance)
}
CORRECTIONS["all"] = [correction for alone in CORRECTIONS.values() for correction in alone]


@pytest.mark.parametrize("name", CORRECTIONS)
def test_one_capture_of_corrections_serves_samplers_with_any_number_of_memories(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each walk is the plain one: memories that carry a change and that do not, inner stages, a learned variance."""
    captured, ordinary = [], Graph._capture
    monkeypatch.setattr(Graph, "_capture", lambda self: (captured.append(self.kinds), ordinary(self))[1])
    schedule, corrections = Schedule(), [*CORRECTIONS[name], Clip()]
    times = respace(1000, 8)
    plans = {
        "ddim": DDIM(0.5).plan(schedule, times),
        "learned_range": Ancestral("learned_range").plan(schedule, times),
        **{f"dpm_solver {order}": DPMSolver(order).plan(schedule, times) for order in (1, 2)},
        "heun": oracle.heun(schedule, times),
        "sums": test_graph.partial_sums(schedule, times),
        **{f"random {m}": test_graph.random_weights(schedule, times, m) for m in (1, 2, 3)},
    }
    denoiser = Denoiser(test_walk.exact_with_variance, schedule, "pred_eps", True)
    rows, shape = torch.arange(64, device="cuda"), (3, 32, 32)
    graph = Graph(denoiser, corrections, Ancestral("fixed_large").plan(schedule, [5]), 64, shape, rows.device)
    for sampler, plan in plans.items():
        graph.load(plan, corrections, 2**40 + 7)
        found = [state.xt.clone() for state in graph(rows)]
        plain = [state.xt for state in walk(plan, denoiser, 2**40 + 7, rows, shape, corrections)]
        without = [state.xt for state in walk(plan, denoiser, 2**40 + 7, rows, shape, [Clip()])]
        for made, wanted in zip(found, plain, strict=True):
            tolerance = 1e-5 * max(1.0, float(wanted.abs().max()))
            torch.testing.assert_close(made, wanted, rtol=1e-5, atol=tolerance, msg=lambda m, of=sampler: f"{of}: {m}")
        assert any(not torch.equal(a, b) for a, b in zip(plain, without, strict=True)), (
            f"{sampler}: nothing was corrected"
        )
    assert len(captured) == 1


def test_one_capture_serves_every_sampler_number_of_steps_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it gives is what a graph of its own gives."""
    captured, ordinary = [], Graph._capture
    monkeypatch.setattr(Graph, "_capture", lambda self: (captured.append(self.kinds), ordinary(self))[1])
    config = tiny(n_steps=100, save_freq=100, ema_decay=0.5)  # of an untrained network clipping leaves no difference
    train(config, tmp_path / "run")
    model = load_model(config, weights(tmp_path / "run"), start_engine(None, fast=True))
    wanted = [
        Sampling(Ancestral("fixed_small"), steps=20, block=64),
        Sampling(DDIM(0.5), steps=7, seed=2**40, block=64),
        Sampling(DPMSolver(), steps="5,2", clip="none", block=64),
        Sampling(Ancestral("fixed_large"), steps=20, clip="keep_eps", seed=1, block=64),
        Sampling(Ancestral("fixed_small"), steps=20, block=64),
    ]
    images = [model.generator(sampling).images(1) for sampling in wanted]
    assert captured == [(("clip", 2),)]
    assert np.array_equal(images[0], images[-1])
    alone = load_model(config, weights(tmp_path / "run"), start_engine(None, fast=True)).generator(wanted[1]).images(1)
    assert np.array_equal(images[1], alone)
    scaled = dataclasses.replace(wanted[1], corrections=(EpsilonScaling(1.05),))
    assert not np.array_equal(model.generator(scaled).images(1), images[1])
    model.generator(dataclasses.replace(scaled, corrections=(EpsilonScaling(1.01),)))
    assert len(captured) == 3, "one for another set of corrections, whatever their settings"


def test_previews_and_evaluations_of_a_training_capture_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And follow the weights: the same pictures as of a run that is sampled after each of these steps."""
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    captured, ordinary = [], Graph._capture
    monkeypatch.setattr(Graph, "_capture", lambda self: (captured.append(len(self._xt)), ordinary(self))[1])
    settings = {"sample_freq": 10, "n_samples": 16, "sample_steps": 5, "save_freq": 10, "keep_last": 9}
    config = tiny(**settings, eval={"every": 10, "n_samples": 100, "steps": 5}, optim={"lr": 1e-2}, ema_decay=0.5)
    train(config, tmp_path / "run")
    assert sorted(captured) == [16, 100]
    pictures = [p.read_bytes() for p in sorted((tmp_path / "run" / "samples").iterdir())]
    assert len(set(pictures)) == 4, "each of other weights"
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert len({json.loads(line)["values"]["FD-pixels"] for line in lines}) == 4
    last = load_model(config, weights(tmp_path / "run"), start_engine(None, fast=True))
    grid_now = grid(preview(last, config.sampling_in_training(5), 16))
    grid_now.save(tmp_path / "now.png")
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "now.png")),
        np.asarray(Image.open(sorted((tmp_path / "run" / "samples").iterdir())[-1])),
    )


def test_an_image_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    """Nor on which were made before: some, more, and those that were removed; the last block is not full."""
    config = tiny(n_steps=2, save_freq=2)
    train(config, tmp_path / "run")

    def made(folder: str, n: int) -> dict[str, bytes]:
        given = SampleOptions(n, dataclasses.replace(SMALL, block=32))
        sample(config, tmp_path / "run", tmp_path / folder, given)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).glob("[0-9]*.png")}

    whole = made("whole", 100)
    assert len(set(whole.values())) == 100
    assert made("some", 5).items() <= whole.items()
    assert made("some", 100) == whole
    for i in (3, 40, 99):
        (tmp_path / "some" / f"{i:06d}.png").unlink()
    assert made("some", 100) == whole


def test_under_fp16_the_scale_goes_on_and_a_step_that_overflows_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reliability theme 9, with the scaler that Accelerate makes."""
    config = tiny(mixed_precision="fp16", deterministic=True, n_steps=24, save_freq=1, keep_last=99)
    ordinary = torch.amp.GradScaler.__init__

    def started(self: Any, *given: Any, **more: Any) -> None:
        ordinary(self, *given, **{**more, "init_scale": 2.0**26, "growth_interval": 3})

    monkeypatch.setattr(torch.amp.GradScaler, "__init__", started)
    train_anew(config, tmp_path / "straight")
    shorter = from_dict({**config.to_dict(), "train": {**config.to_dict()["train"], "n_steps": 7}})
    train_anew(shorter, tmp_path / "resumed")
    train_anew(config, tmp_path / "resumed", "latest")
    saved = [[step_folder(tmp_path / name, n) for n in range(1, 25)] for name in ("straight", "resumed")]
    scales = [[json.loads((at / "meta.json").read_text())["scaler"]["scale"] for at in of] for of in saved]
    assert scales[0] == scales[1]
    a, b = (load_file(of[-1] / "model.safetensors") for of in saved)
    assert all(torch.equal(a[k], b[k]) for k in a)
    left_out = [i for i in range(1, 24) if scales[0][i] < scales[0][i - 1]]
    assert any(later - earlier > 1 for earlier, later in pairwise(left_out)), "one after the weights have moved"
    for i in range(1, 24):
        for part in ("model", "ema"):
            before, after = (load_file(saved[0][n] / f"{part}.safetensors") for n in (i - 1, i))
            assert all(torch.equal(before[k], after[k]) for k in after) == (i in left_out), (i, part)


def test_the_default_block_is_what_the_free_memory_holds() -> None:
    accelerator = start_engine(None)
    free, _ = torch.cuda.mem_get_info()
    assert default_block(tiny(), accelerator) == fitting_block(free, image_bytes(tiny(), "no")) == 1024
    assert default_block(from_dict({**tiny().to_dict(), "model": {"dim": 2**17}}), accelerator) == 64
