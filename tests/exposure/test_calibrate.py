"""ddpm-ip calibrate: corrections fitted to a run and kept beside it, for sample, table and report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import (
    contents,
    one_thread,
    step_folder,
    tiny,
    tree,
    two_processes,
    with_classes,
)

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.config import Config, from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.exposure.calibrate import CalibrateOptions, Calibration, calibrate, undoable
from ddpm_ip.exposure.candidates import BALANCE, NONE
from ddpm_ip.exposure.sentences import WIDTH
from ddpm_ip.exposure.times import calibrate_with_times
from ddpm_ip.files import read_json
from ddpm_ip.report.run import load_runs
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights, find_weights
from ddpm_ip.sample.filled import calibrated_alone
from ddpm_ip.sampler.correction import Auto, BandGains, EpsilonScaling, Guidance
from ddpm_ip.sampler.sampling import Sampling

DDIM = Sampling(ip.DDIM(), steps=3, block=8)
FEW = CalibrateOptions(n=16)
QUICK = ["--n", "16", "--batch_size", "8", "--sampler", "ddim", "--steps", "3"]


def kept(folder: Path) -> dict[str, dict]:
    return {path.stem: read_json(path) for path in sorted(folder.glob("calibration-*.json"))}


def found(config: Config, folder: Path, sampling: Sampling, options: CalibrateOptions = FEW) -> Calibration:
    """A calibration, which is there for the same sampling with ``auto``."""
    weights = find_weights(folder)
    made = calibrate(config, weights, sampling, options)
    there = any(isinstance(c, Auto) for c in sampling.corrections)
    asked = sampling if there else replace(sampling, corrections=(*sampling.corrections, Auto()))
    read = calibrated_alone(asked, config, Measured.of(weights.sha256, Path(weights.origin)))
    chain = next(c.chain for c in read.corrections if isinstance(c, Auto))
    if getattr(sampling.sampler, "var_type", "") != "analytic":
        assert len(chain) == len(made.found["corrections"])
    return made


def fresh(tmp_path: Path, **sections) -> tuple[Config, Weights]:
    """A network that was not trained, whose last layer says something."""
    config = from_dict({**tree(), **sections})
    torch.manual_seed(0)
    tensors = {
        name: (t + 0.02 * torch.randn_like(t)).contiguous() for name, t in config.build_network().state_dict().items()
    }
    save_file(tensors, tmp_path / "fresh.safetensors")
    return config, Weights(tensors, "0" * 64, True, None, str(tmp_path / "fresh.safetensors"))


def test_sample_table_and_report_use_what_is_kept(folder, tmp_path, capsys) -> None:
    assert main(["calibrate", "--weights", str(folder), *QUICK]) == 0
    printed = capsys.readouterr()
    ((name, file),) = kept(folder).items()
    assert re.fullmatch("calibration-ddim-3-[0-9a-f]{8}", name)
    assert file["weights"] == find_weights(folder).sha256
    names = [c["name"] for c in file["candidates"]]
    assert names[0] == NONE
    assert BALANCE in names
    assert file["chosen"] in names
    assert next(c for c in file["candidates"] if c["name"] == file["chosen"])["n"] == 16, "judged on all images"
    assert file["settings"]["n"] == 16
    assert file["settings"]["sampling"]["steps"] == 3
    assert {"slope", "eps_norm.ratio", "energy.haar3.ratio", "gain.balance.b.haar0"} <= file["curves"].keys()
    assert file["why"] in " ".join(printed.out.split())
    assert all(len(line) <= WIDTH for line in printed.out.splitlines() if str(folder) not in line)
    assert len(re.findall(r"none: mismatch .* of 16 images\n", printed.err)) == 1
    given = ["--sampler", "ddim", "--steps", "3", "--batch_size", "4"]
    where = ["--weights", str(folder), "--save_dir", str(tmp_path / "out"), "--n_samples", "4"]
    assert main(["sample", *where, *given, "--corrections", "auto"]) == 0
    judged = ["--extractor", "pixels", "--n_samples", "4", "--corrections", "none", "auto"]
    assert main(["table", "-e", str(folder), *given, *judged]) == 0
    (run,) = load_runs([folder])
    (told,) = run.calibrations
    assert told.why == file["why"]
    assert len(told.candidates) == len(names)


def test_a_second_call_overwrites_its_own_file_alone(folder) -> None:
    config = tiny()
    first, other = found(config, folder, DDIM), found(config, folder, replace(DDIM, steps=2))
    before = contents(folder)
    again = calibrate(config, find_weights(folder), DDIM, replace(FEW, seed=2))
    assert again.file == first.file != other.file
    after = contents(folder)
    assert {path for path in after if after[path] != before.get(path)} == {first.file.name}


def test_two_processes_fit_what_one_does(folder, tmp_path) -> None:
    """Three blocks, so that one of the two has a block less."""
    both = shutil.copytree(folder, tmp_path / "both")
    call = ["--n", "24", "--batch_size", "8", "--sampler", "dpm_solver", "--steps", "3", "--extractor", "pixels"]
    assert main(["calibrate", "--weights", str(folder), *call]) == 0
    assert two_processes(lambda: main(["calibrate", "--weights", str(both), *call])) == [0, 0]
    ((name, alone),), ((same, shared),) = kept(folder).items(), kept(both).items()
    assert name == same
    assert alone["chosen"] == shared["chosen"]
    for one, other in zip(alone["candidates"], shared["candidates"], strict=True):
        assert other["mismatch"] == pytest.approx(one["mismatch"], rel=1e-4)
        assert (one["n"], one["name"]) == (other["n"], other["name"])
        assert other["distance"] == (one["distance"] and pytest.approx(one["distance"], rel=1e-4))
    for curve, numbers in alone["curves"].items():
        assert shared["curves"][curve]["value"] == pytest.approx(numbers["value"], rel=1e-5)


def test_features_that_somebody_names_decide(folder) -> None:
    made = found(tiny(), folder, DDIM, replace(FEW, extractor="pixels"))
    distances = {c["name"]: c["distance"] for c in made.found["candidates"] if c["distance"] is not None}
    assert {NONE, BALANCE} <= distances.keys()
    assert made.found["chosen"] in (NONE, min(distances, key=distances.__getitem__))
    assert "pixels" in made.found["why"]
    assert "pixels" in made.found["cannot_know"][0]


@pytest.mark.parametrize(
    "sampling",
    [
        replace(DDIM, sampler=ip.Heun()),
        replace(DDIM, sampler=ip.DPMSolverSingle(), steps=4),
        replace(DDIM, sampler=ip.Restart()),
        replace(DDIM, sampler=ip.Euler(s_churn=1.0)),
        replace(DDIM, sampler=ip.Ancestral("analytic")),
        replace(DDIM, afs=True, denoise_to_zero=False),
        replace(DDIM, steps=1),
        replace(DDIM, corrections=(Auto(), EpsilonScaling(1.01))),
        replace(DDIM, corrections=(BandGains((1.01,)), EpsilonScaling(1.01))),
    ],
    ids=lambda s: f"{s.sampler.name}-{s.steps}-{len(s.corrections)}-{s.afs}",
)
def test_any_sampling_is_calibrated(folder, sampling) -> None:
    of = find_weights(folder)
    gammas = {"times": [0, 999], "norm": [0.5, 0.9], "residual": [0.4, 0.8]}
    Measured.of(of.sha256, Path(of.origin)).write("analytic", gammas, {})
    made = found(tiny(), folder, sampling)
    assert sum(c["name"] == NONE for c in made.found["candidates"]) == 1


def test_candidates_stand_where_auto_does(with_labels, tmp_path, monkeypatch) -> None:
    """Guidance asks twice and must come first; real images are asked about with their classes."""
    one_thread(monkeypatch)
    run = shutil.copytree(with_labels, tmp_path / "run")
    config, ddim = with_classes(), replace(DDIM, steps=2)
    for sampling in (ddim, replace(ddim, classes=(3,)), replace(ddim, classes=(-1,))):
        found(config, run, sampling)
    found(config, run, replace(ddim, corrections=(Guidance(2.0), Auto(), ip.DCW())))
    call = ["calibrate", "--weights", str(run), "--n", "10", "--sampler", "ddim", "--steps", "2"]
    assert main([*call, "--corrections", "guidance,scale=2"]) == 0
    assert len(kept(run)) == 5


@pytest.mark.parametrize(
    ("channels", "side", "sections"),
    [
        (4, 12, {"diffusion": {"objective": "pred_v"}}),
        (3, 8, {"diffusion": {"objective": "pred_x0"}}),
        (1, 10, {"diffusion": {"var_type": "learned_range"}}),
    ],
)
def test_any_network_and_images(tmp_path, monkeypatch, channels, side, sections) -> None:
    """Sides that 8 does not divide, fewer images than walks, any prediction, any variance."""
    one_thread(monkeypatch)
    pixels = np.random.default_rng(0).integers(0, 256, (12, side, side, channels), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    data = {"name": "npz", "root": str(tmp_path / "images.npy"), "image_size": side, "layout": "channels_last"}
    model = {**tree()["model"], "in_channels": channels}
    config, weights = fresh(tmp_path, data=data, model=model, **sections)
    sampler = ip.Ancestral() if "var_type" in sections["diffusion"] else ip.DDIM()
    made = calibrate(config, weights, replace(DDIM, sampler=sampler, steps=2), replace(FEW, n=20))
    assert np.isfinite([c["mismatch"] for c in made.found["candidates"]]).all()


def test_optimised_times_are_found_and_compared(folder, capsys, monkeypatch) -> None:
    assert main(["calibrate", "--weights", str(folder), *QUICK, "--times"]) == 0
    out = capsys.readouterr().out
    assert len(kept(folder)) == 2
    left = {
        file["settings"]["sampling"]["spacing"] == "uniform-linspace": next(
            c["mismatch"] for c in file["candidates"] if c["name"] == file["chosen"]
        )
        for file in kept(folder).values()
    }
    command = out.splitlines()[-1]
    assert ("--spacing optimised" in command) == (left[False] < left[True])
    assert command.startswith("ddpm-ip sample --weights ... --sampler ddim")
    assert command.endswith("--corrections auto")
    monkeypatch.setattr("ddpm_ip.exposure.times.optimise", None)  # times that are there are used
    sampling = replace(DDIM, corrections=(Auto(),))
    again = calibrate_with_times(tiny(), find_weights(folder), sampling, FEW)
    assert {again.given.file.stem, again.optimised.file.stem} == kept(folder).keys()


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n", "9"], "at least 10"),
        (["--times", "--steps", "ddim5"], "a plain number"),
        (["--times", "--spacing", "optimised"], "another --spacing"),
        (["--spacing", "optimised"], "ddpm-ip times"),
        (["--steps", "2000"], "2000"),
        (["--extractor", "nobody"], "nobody"),
        (["--data", "{name: folder, root: /nowhere/at/all, image_size: 8}"], "--reference"),
        (["--reference", "/nowhere/at/all.yaml"], "/nowhere/at/all.yaml"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(folder, capsys, monkeypatch, more, message) -> None:
    monkeypatch.setattr("ddpm_ip.exposure.calibrate.truth", None)  # which comes first
    before = contents(folder)
    assert main(["calibrate", "--weights", str(folder), *QUICK, *more]) == 2
    assert message in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("clip", ["rederive", "none"])
def test_a_network_that_diverged_is_refused_and_nothing_is_kept(trained, tmp_path, monkeypatch, clip) -> None:
    one_thread(monkeypatch)
    weights = load_file(step_folder(trained, 6) / "ema.safetensors")
    save_file({k: v * 1e30 for k, v in weights.items()}, tmp_path / "large.safetensors")
    of = find_weights(tmp_path / "large.safetensors")
    with pytest.raises(ip.UserError, match=r"large\.safetensors does not make images"):
        calibrate(tiny(), of, replace(DDIM, clip=clip), FEW)
    assert not kept(tmp_path)


def test_what_perturbation_can_be_undone() -> None:
    def of(objective="pred_eps", **perturbation) -> float | None:
        return undoable(from_dict({**tree(), "perturbation": perturbation, "diffusion": {"objective": objective}}))

    assert of(name="none") == of(name="input", gamma=0) == of(name="input", probability=0) == 0
    assert of(name="input", gamma=0.15) == of("pred_v", name="input", gamma=0.15, target="consistent") == 0.15
    one = {"name": "input", "gamma": 0.1}
    for more in ({"gamma": [0.1, 0.2]}, {"until": 5}, {"random": True}, {"probability": 0.8}):
        assert of(**{**one, **more}) is None
    assert of("pred_x0", **one) is of("pred_v", **one) is None


def test_other_real_images_can_be_named(folder, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    data = {"name": "npz", "root": str(tmp_path / "images.npy"), "image_size": 8, "layout": "channels_last"}
    (tmp_path / "real.yaml").write_text(json.dumps({"data": data}))
    assert main(["calibrate", "--weights", str(folder), *QUICK, "--reference", str(tmp_path / "real.yaml")]) == 0
    ((_, file),) = kept(folder).items()
    assert file["settings"]["data"] == "images"


def test_few_walks_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 10"):
        CalibrateOptions(n=9)
