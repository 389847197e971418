"""A run that continues is the same run: what may change is noted, what is another method or other data is refused.

The message lists every difference; where it is meant, ``--change`` names it, and the history of the run tells it for
good. Every key by itself is in tests/test_settings.py.
"""

import pytest
from PIL import Image
from tests.tiny import contents, meta, numbers, run, steps_saved, tiny, tree

from ddpm_ip.config import from_dict, merge
from ddpm_ip.errors import CheckpointError, ConfigError
from ddpm_ip.settings import Wanted


def test_a_changed_learning_rate_is_allowed_and_noted(tmp_path):
    run(tiny(n_steps=2), tmp_path)
    changed = from_dict(merge(tree(n_steps=4), {"train.optim.lr": 0.005}))
    assert run(changed, tmp_path, "latest").step == 4
    assert "train.optim.lr: 0.0002 -> 0.005" in (tmp_path / "log.txt").read_text()
    assert [n[3] for n in numbers(tmp_path)] == [0.0002, 0.0002, 0.005, 0.005]
    (entry,) = meta(tmp_path, 4)["history"]
    assert entry["step"] == 2
    assert "train.optim.lr: 0.0002 -> 0.005" in entry["changes"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "run"
    run(tiny(n_steps=2), folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"model.dim": 16}, ["model.dim: the run has 8, asked for is 16"]),
        ({"diffusion.total_steps": 500}, ["diffusion.total_steps: the run has 1000, asked for is 500"]),
        ({"diffusion.objective": "pred_v"}, ["diffusion.objective: the run has 'pred_eps', asked for is 'pred_v'"]),
        ({"train.ema_decay": 0.5}, ["train.ema_decay: the run has 0.9, asked for is 0.5"]),
        ({"perturbation.gamma": 0.15}, ["perturbation.gamma: the run has 0.1, asked for is 0.15"]),
        (
            {"model.dim": 16, "perturbation.gamma": 0.15, "train.optim.lr": 1e-3},
            ["model.dim: the run has 8, asked for is 16", "perturbation.gamma: the run has 0.1, asked for is 0.15"],
        ),
    ],
)
def test_another_method_is_refused_with_every_difference(begun, changes, differences):
    before = contents(begun)
    with pytest.raises(ConfigError) as caught:
        run(from_dict(merge(tree(n_steps=4), changes)), begun, "latest")
    assert [difference for difference in differences if difference not in str(caught.value)] == []
    assert contents(begun) == before


def test_other_data_are_refused_unless_they_are_meant(tmp_path):
    """Known by what they hold: the same folder with one other pixel."""
    pictures = tmp_path / "images"
    pictures.mkdir()
    for i in range(16):
        Image.new("L", (8, 8), i).save(pictures / f"{i}.png")
    data = {"name": "folder", "root": str(pictures), "image_size": 8, "mode": "gray"}
    run(from_dict({**tree(n_steps=2), "data": data}), tmp_path / "run")
    other = Image.open(pictures / "3.png")
    other.putpixel((2, 2), 200)
    other.save(pictures / "3.png")
    changed = from_dict({**tree(n_steps=4), "data": data})
    with pytest.raises(CheckpointError, match=r"the images of images are not those .*SHA-256 .* -> .*--change data"):
        run(changed, tmp_path / "run", "latest")
    assert steps_saved(tmp_path / "run") == [2]
    run(Wanted(config=changed, change=("data.root",)), tmp_path / "run", "latest")
    assert steps_saved(tmp_path / "run") == [2, 4]
    (entry,) = meta(tmp_path / "run", 4)["history"]
    assert entry["step"] == 2
    assert "data: " in entry["changes"][-1]
