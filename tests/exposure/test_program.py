"""ddpm-ip exposure: measured once, kept beside the weights, told and drawn; from Python and on two processes, too."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import (
    one_thread,
    two_processes,
    with_classes,
    yaml_file,
)

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.commands.exposure import told_apart
from ddpm_ip.config import Config
from ddpm_ip.data import Digits
from ddpm_ip.errors import ConfigError
from ddpm_ip.exposure.curves import KINDS
from ddpm_ip.exposure.measure import Measurement
from ddpm_ip.exposure.program import ExposureOptions, chosen_images, real_images
from ddpm_ip.files import read_json
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample.program import load_model, sampling_engine
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.correction import Guidance
from ddpm_ip.sampler.sampling import Sampling

FEW = ["--steps", "2", "--n", "20", "--batch_size", "8"]
QUICK = [*FEW, "--measure", "eps_norm"]


def kept(folder: Path) -> dict[str, dict]:
    return {path.stem: read_json(path) for path in sorted((folder / "exposure").glob("*.json"))}


def test_curves_are_kept_told_and_drawn(folder, capsys) -> None:
    assert main(["exposure", "--weights", str(folder), "--sampler", "ddim", *QUICK, "delta"]) == 0
    ((name, found),) = kept(folder).items()
    assert name.startswith("ddim-2-")
    assert len(name) == len("ddim-2-") + 8
    assert (found["label"], found["n"], found["data"]["name"]) == ("ddim, 2 steps", 20, "digits")
    assert found["weights"] == find_weights(folder).sha256
    told = capsys.readouterr().out
    assert "eps_norm.ratio" in told
    assert "\n999 " in told
    assert {path.suffix for path in (folder / "exposure").iterdir()} == {".json", ".svg", ".png", ".csv"}
    assert all(f"{name}{suffix}" in told for suffix in (".json", ".svg"))


def test_all_curves_of_a_network_are_numbers(folder) -> None:
    found = ip.load(folder).exposure(n=20, sampler=DDIM(), steps=2, block=8)
    assert {*found.curves} == {*KINDS} - {"nu.normal"}, "a block of 8 is too small for a test of normality"
    ((_, file),) = kept(folder).items()
    assert file["settings"]["measures"] == ["eps_norm", "delta", "errors", "energy"]
    assert np.isfinite([x for curve in file["curves"].values() for key in curve for x in curve[key]]).all()


def test_what_is_there_is_not_measured_again_and_more_is_added(folder, monkeypatch) -> None:
    measured: list[tuple[str, ...]] = []
    sums = Measurement.sums

    def counted(self, progress=lambda images: None):
        measured.append(self.measures)
        return sums(self, progress)

    monkeypatch.setattr(Measurement, "sums", counted)
    run, same = ip.load(folder), {"sampler": DDIM(), "steps": 2, "block": 8}
    first = run.exposure("eps_norm", "delta", n=20, **same)
    ((name, before),) = kept(folder).items()
    assert run.exposure("delta", n=20, **same).curves == first.curves
    assert kept(folder) == {name: before}
    run.exposure("eps_norm", "energy", n=20, **same)
    run.exposure("delta", n=20, again=True, **same)
    assert measured == [("eps_norm", "delta"), ("energy",), ("delta",)]
    ((_, found),) = kept(folder).items()
    assert found["settings"]["measures"] == ["eps_norm", "delta", "energy"]
    assert {key: found["curves"][key] for key in before["curves"]} == before["curves"]


def test_several_weights_chains_and_steps_are_lines_of_one_figure(folder, tmp_path, capsys) -> None:
    twin = shutil.copytree(folder, tmp_path / "twin")
    chains = ["--sampler", "ddim", "--corrections", "none", "epsilon_scaling,scale=1.02", "--steps", "2", "3"]
    call = ["exposure", "--weights", str(folder), "--weights", str(twin), *chains, "--n", "10"]
    call += ["--measure", "delta"]
    assert main([*call, "-o", str(tmp_path / "drawn")]) == 0
    assert len(kept(folder)) == len(kept(twin)) == 4
    lines = (tmp_path / "drawn.csv").read_text().splitlines()
    named = [f"{run}: ddim{chain}, {k} steps" for run in ("run", "twin")
             for chain in ("", "+epsilon_scaling,scale=1.02") for k in (2, 3)]  # fmt: skip
    assert all(any(name in line for line in lines) for name in named)
    assert all(name in capsys.readouterr().out for name in named[:1])


def test_without_matplotlib_the_numbers_are_written_and_one_line_says_so(folder, capsys, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["exposure", "--weights", str(folder), "--sampler", "ddim", *QUICK]) == 0
    assert {path.suffix for path in (folder / "exposure").iterdir()} == {".json", ".csv"}
    told = capsys.readouterr()
    assert told.out.rstrip().endswith(".csv")
    assert len(re.findall(r"matplotlib: pip install .*plot", told.err)) == 1


def test_from_python_it_is_the_same(folder) -> None:
    assert main(["exposure", "--weights", str(folder), "--sampler", "ddim", *QUICK]) == 0
    ((_, found),) = kept(folder).items()
    exposure = ip.load(folder).exposure("eps_norm", n=20, sampler=DDIM(), steps=2, block=8)
    assert exposure.curves["eps_norm.ratio"].value == tuple(found["curves"]["eps_norm.ratio"]["value"])
    again = ip.load(folder).exposure("eps_norm", n=20, again=True, sampler=DDIM(), steps=2, block=8)
    assert again.curves == exposure.curves
    assert len(kept(folder)) == 1


def test_two_processes_give_the_numbers_of_one(folder, tmp_path) -> None:
    both = shutil.copytree(folder, tmp_path / "both")
    assert main(["exposure", "--weights", str(folder), *QUICK]) == 0
    assert two_processes(lambda: main(["exposure", "--weights", str(both), *QUICK])) == [0, 0]
    ((name, alone),), ((same, shared),) = kept(folder).items(), kept(both).items()
    assert name == same
    for curve, numbers in alone["curves"].items():
        for key, values in numbers.items():
            assert shared["curves"][curve][key] == pytest.approx(values, rel=1e-5, abs=1e-7)


def test_what_makes_other_numbers_makes_another_file(folder) -> None:
    run, same = ip.load(folder), {"sampler": DDIM(), "steps": 2, "block": 8}
    for more in ({}, {"seed": 1}, {"corrections": [ip.TSR()]}, {"clip": "none"}, {"spacing": "quad"}):
        run.exposure("eps_norm", n=20, **{**same, **more})
    run.exposure("eps_norm", n=10, **same)
    assert len(kept(folder)) == 6


def model_of(config: Config, folder: Path, sampling: Sampling):
    engine = sampling_engine(config, sampling)
    return load_model(config, find_weights(folder).tensors, engine).generator(sampling)


def test_a_network_is_told_the_classes_of_the_real_images(with_labels, monkeypatch) -> None:
    one_thread(monkeypatch)
    config, source = with_classes(), Digits().open()
    base = Sampling(DDIM(), steps=2, block=8)
    every, some, nobody = (
        chosen_images(source, model_of(config, with_labels, sampling), 40)
        for sampling in (base, Sampling(DDIM(), steps=2, block=8, classes=(3, 5)),
                         Sampling(DDIM(), steps=2, block=8, classes=(-1,)))
    )  # fmt: skip
    of_image = {source.pixels[i].tobytes(): int(source.labels[i]) for i in range(len(source))}
    for real in (every, some):
        assert [of_image[pixels.numpy().tobytes()] for pixels in real.pixels] == real.labels.tolist()
    assert {*some.labels.tolist()} == {3, 5}
    assert len({*every.labels.tolist()}) > 5
    assert (nobody.labels == -1).all()
    told = model_of(config, with_labels, Sampling(DDIM(), (Guidance(2.0),), steps=2, block=8))
    measured = Measurement(told, every, 16, ("eps_norm", "delta"))
    assert all(bool(value.isfinite().all()) for value in measured.sums().values.values())


def test_the_labels_reach_the_network(with_labels, monkeypatch) -> None:
    one_thread(monkeypatch)
    generator = model_of(with_classes(), with_labels, Sampling(DDIM(), steps=2, block=8))
    xt, indices = torch.zeros(8, 1, 8, 8), torch.arange(8)
    three, five = ((next(generator.visits([(0, xt)], indices, torch.full((8,), c))).output) for c in (3, 5))
    assert not torch.equal(three, five)
    walked = [list(generator.walk(indices, xt, torch.full((8,), c)))[-1].xt for c in (3, 5)]
    assert not torch.equal(*walked)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "9"], "needs at least 10"),
        (["--measure", "norms"], "choose of eps_norm, delta, errors, energy"),
        (
            ["--data.name", "folder", "--data.root", "nowhere", "--data.image_size", "8"],
            "--reference DATA",
        ),
    ],
)
def test_mistakes_are_said(folder, words, said, capsys) -> None:
    assert main(["exposure", "--weights", str(folder), *words]) != 0
    assert said in capsys.readouterr().err
    assert not (folder / "exposure").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sampler", "ddim", "--corrections", "none", "auto", "--steps", "2", "3"], "2 calibrations are missing"),
        (["-o", "{folder}"], "that is a folder"),
        (["-o", "{folder}/config.yaml/drawn"], "config.yaml"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_measured(folder, words, said, capsys) -> None:
    words = [word.format(folder=folder) for word in words]
    assert main(["exposure", "--weights", str(folder), "--n", "10", *words]) != 0
    assert said in capsys.readouterr().err
    assert kept(folder) == {}


def test_weights_of_one_name_are_told_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Path("a/run"), Path("b/run"), Path()]
    assert told_apart(paths) == ["a/run", "b/run", "/".join(tmp_path.parts[-2:])]
    assert told_apart([Path("a/run"), Path("a/other"), Path("a/../a/run")]) == ["run", "other", "run"]


def test_a_damaged_file_says_what_to_do(folder, capsys) -> None:
    assert main(["exposure", "--weights", str(folder), *QUICK]) == 0
    (file,) = (folder / "exposure").glob("*.json")
    found = read_json(file)
    found["curves"]["eps_norm.ratio"]["t"][0] = float("nan")
    file.write_text(json.dumps(found))
    assert main(["exposure", "--weights", str(folder), *QUICK]) != 0
    assert "Remove it, and it is measured again" in capsys.readouterr().err


def test_other_real_images_may_be_named(folder, tmp_path, capsys) -> None:
    assert main(["exposure", "--weights", str(folder), *QUICK, "--reference", str(yaml_file(tmp_path))]) == 0
    assert "20 images, real ones of digits" in capsys.readouterr().out


def test_fewer_real_images_are_as_many_as_there_are(trained, monkeypatch) -> None:
    one_thread(monkeypatch)
    config = ip.load(trained).config
    generator = model_of(config, trained, Sampling(DDIM(), steps=2, block=8))
    source = real_images(config, generator.model.engine, None)
    assert len(chosen_images(source, generator, 10**6).pixels) == len(source)
    with pytest.raises(ConfigError, match="at least 10"):
        ExposureOptions(n=0)
    few = replace(source, pixels=source.pixels[:9])
    with pytest.raises(ConfigError, match="has 9 images, and 10 or more"):
        chosen_images(few, generator, 20)
