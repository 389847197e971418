"""What is made where neither options nor the configuration say how: a good sampler, 50 steps, beside the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tree

from ddpm_ip.config import from_dict
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sample.usual import place, usual
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, DPMSolverSDE
from ddpm_ip.sampler.sampling import Sampling


def made(overrides: dict[str, Any], mode: str = "sample", **sections: Any) -> Sampling:
    config = from_dict({**tree(), **sections}, overrides=overrides)
    return usual(config.sampling, config, overrides, mode)


@pytest.mark.parametrize(
    ("overrides", "sections", "sampler", "steps", "spacing"),
    [
        ({}, {}, DPMSolverSDE(), 50, "logsnr"),
        ({"sampling.steps": 7}, {}, DPMSolverSDE(), 7, "logsnr"),
        ({"sampling.steps": None}, {}, DPMSolverSDE(), None, "logsnr"),
        ({"sampling.spacing": "beta"}, {}, DPMSolverSDE(), 50, "beta"),
        ({"sampling.spacing": "[900,5]"}, {}, DPMSolverSDE(), None, "[900,5]"),
        ({"sampling.sampler.name": "ancestral"}, {}, Ancestral(), 50, "uniform-linspace"),
        ({}, {"sampling": {"sampler": {"name": "dpm_solver"}, "steps": 9}}, DPMSolver(), 9, "uniform-linspace"),
        ({}, {"sampling": {"seed": 3}, "diffusion": {"total_steps": 20}}, DPMSolverSDE(), 20, "logsnr"),
        ({}, {"diffusion": {"var_type": "learned_range"}}, Ancestral(), 50, "uniform-leading"),
    ],
)
def test_what_is_said_stays_and_the_rest_is_good(overrides, sections, sampler, steps, spacing):
    found = made(overrides, **sections)
    assert (found.sampler, found.steps) == (sampler, steps)
    assert str(found.spacing).replace(" ", "") in (spacing, "(900.0,5.0)")


@pytest.mark.parametrize(
    ("overrides", "mode"), [({}, "interpolate"), ({}, "reconstruction"), ({"sampling.afs": True}, "sample")]
)
def test_what_noise_would_spoil_gets_a_deterministic_sampler(overrides, mode):
    assert made(overrides, mode).sampler == DDIM(eta=0.0)


def test_another_sampling_has_another_folder_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run/ckpt/step00000001").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def folder(sha: str = "0", path: str = "run", n: int = 64, mode: Any = "sample", **settings: Any) -> Path:
        weights = Weights({}, sha * 64, True, None, "run/ckpt/step00000001")
        sampling = Sampling(**{"sampler": DDIM(), "steps": 50, **settings})
        return place(weights, Path(path), SampleOptions(n, sampling, mode))

    usual_one = folder()
    assert usual_one.parent == Path("run/samples")
    assert usual_one.name.startswith("ddim-50-")
    assert folder(n=7, block=3) == usual_one, "more images of the same are in the same folder"
    others = [folder("1"), folder(seed=1), folder(steps=5), folder(mode="denoise"), folder(spacing="quad")]
    assert len({usual_one, *others}) == 6
    assert folder(path="owner/on-the-hub").parent == Path("samples"), "not in the cache of the hub"
