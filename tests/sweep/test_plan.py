"""What a sweep is asked for: which runs follow, how they are called, and what cannot be asked."""

import json
from dataclasses import replace

import pytest
from tests.tiny import tree

from ddpm_ip.errors import ConfigError
from ddpm_ip.files import write_json
from ddpm_ip.sweep.plan import Asked, grown, read_asked, read_over

GAMMA = {"perturbation.gamma": [0, 0.1]}


def asked(**changed) -> Asked:
    return replace(Asked(tree(), "tiny.yaml", over=GAMMA, seeds=(0, 1)), **changed)


def test_every_value_comes_with_every_seed_and_all_points_come_first():
    runs = asked(over={**GAMMA, "train.optim.lr": [1e-3, 0.002]}).runs
    assert [run.name for run in runs[:5]] == [
        "gamma=0,lr=0.001,seed=0",
        "gamma=0,lr=0.002,seed=0",
        "gamma=0.1,lr=0.001,seed=0",
        "gamma=0.1,lr=0.002,seed=0",
        "gamma=0,lr=0.001,seed=1",
    ]
    assert [(r.config.perturbation.gamma, r.config.train.optim.lr, r.config.seed) for r in runs[3:5]] == [
        (0.1, 0.002, 0),
        (0.0, 0.001, 1),
    ]
    assert [run.name for run in asked(over={}).runs] == ["seed=0", "seed=1"]


def test_values_are_yaml_and_may_be_lists():
    found = read_over(["model.dim_mults=[1,2],[1,2,2]", "perturbation.name=none,input", "train.flip=true,false"])
    assert found == {
        "model.dim_mults": [[1, 2], [1, 2, 2]],
        "perturbation.name": ["none", "input"],
        "train.flip": [True, False],
    }
    attention = {"model.use_attn": [[False, True], [True, True]]}
    assert [run.name for run in asked(over=attention, seeds=[3]).runs] == [
        f"use_attn={value},seed=3" for value in ("[false,true]", "[true,true]")
    ]


def test_names_of_folders_are_names_of_folders():
    """Whatever a value is; and of values that look alike afterwards each has its own."""
    config = {**tree(), "data": {"name": "folder", "root": "r", "image_size": 8}}
    names = [run.name for run in asked(config=config, over={"data.root": ["/a/b", "_a_b", "x" * 300, "..", "."]}).runs]
    assert len(set(names)) == len(names)
    assert all(len(name) < 120 and "/" not in name and not name.startswith(".") for name in names)


def test_keys_with_one_ending_are_told_by_their_whole_name():
    config = {**tree(), "perturbation": {"name": "input", "gamma": 0.1}}
    over = {"model.dropout": [0.1], "classes.dropout": [0.2]}
    (run,) = asked(config={**config, "classes": {"count": 10}}, over=over, seeds=[0]).runs
    assert run.name == "model.dropout=0.1,classes.dropout=0.2,seed=0"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"over": {"perturbation.gama": [0]}}, "gamma"),
        ({"over": {"perturbation.gamma": [-1]}}, "perturbation.gamma"),
        ({"over": {"perturbation.gamma": []}}, "there is no value"),
        ({"over": {"perturbation.gamma": [0.1, 0.10]}}, "are the same run"),
        ({"over": {"perturbation.gamma": [0, 0.0]}}, "are the same run"),
        ({"over": {"seed": [0, 1]}}, "--seeds"),
        ({"options": {"seed": 1}}, "--seeds"),
        ({"options": {"perturbation.gamma": 0.2}}, "give it once"),
        ({"options": {"train.alert_command": "true"}}, "for a single training"),
        ({"over": {"sampling.steps": [10, 20]}}, "--rows"),
        ({"over": {"train.print_freq": [10, 20]}}, "no step of the training"),
        ({"seeds": [0, 0]}, "once"),
        ({"seeds": []}, "at least one"),
        ({"images": 100, "options": {"train.n_steps": 3}}, "one of them"),
    ],
)
def test_what_cannot_be_is_told(changed, message):
    with pytest.raises(ConfigError, match=message):
        _ = asked(**changed).runs


@pytest.mark.parametrize("text", ["perturbation.gamma", "gamma:0", "=1", "a=[1", "a=1\0"])
def test_a_text_of_another_form_is_told(text):
    with pytest.raises(ConfigError, match="--over"):
        read_over([text])


def test_a_key_twice_is_told():
    with pytest.raises(ConfigError, match="twice"):
        read_over(["a=1", "a=2"])


def test_it_is_told_where_the_runs_cost_otherwise():
    assert asked().unequal == []
    batches = {"train.batch_size": [8, 3]}
    assert asked(over={**GAMMA, **batches, "model.dim": [8, 16]}).unequal == ["train.batch_size", "model.dim"]
    equal = asked(over=batches, images=24, seeds=[0])
    assert equal.unequal == []
    assert [(run.config.train.n_steps, run.images) for run in equal.runs] == [(3, 24), (8, 24)]


def test_more_values_and_seeds_may_be_asked_for(tmp_path):
    more = asked(over={"perturbation.gamma": [0.2, 0, 0.1]}, seeds=[2, 0, 1], table=["--steps", "2"])
    assert grown(asked(), more, tmp_path) == more
    two = {"train.optim.lr": [0.1], **GAMMA}
    turned = grown(asked(over=two), asked(over=dict(reversed(two.items()))), tmp_path)
    assert list(turned.over) == list(two)  # folders are named in the order of the keys


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"over": {"perturbation.gamma": [0]}}, "gamma=0.1,seed=0, which is not asked for any more"),
        ({"seeds": [0]}, "gamma=0,seed=1, which"),
        ({"over": {"train.optim.lr": [0.1]}}, "is over perturbation.gamma, and train.optim.lr"),
        ({"options": {"train.batch_size": 16}}, "train.batch_size: trained with 8, asked for is 16"),
        ({"config": tree(n_steps=9)}, "train.n_steps: trained with 6, asked for is 9"),
    ],
)
def test_another_sweep_is_refused_with_the_difference(tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        grown(asked(), asked(**changed), tmp_path)


def test_what_was_asked_is_read_back(tmp_path):
    whole = asked(options={"train.n_steps": 4}, table=["--steps", "2"], exposure=["--n", "20"])
    file = tmp_path / "sweep.json"
    assert read_asked(file) is None
    write_json(file, whole.to_dict())
    found = read_asked(file)
    assert found is not None
    assert found.to_dict() == whole.to_dict()
    assert [run.name for run in found.runs] == [run.name for run in whole.runs]


@pytest.mark.parametrize(
    "damage",
    [
        {"over": {"a": 1}}, {"seeds": 3}, {"seeds": ["0"]}, {"config": []}, {"exposure": "all"}, {"exposure": [1]},
        {"table": [{}]}, {"images": "many"},
    ],
)  # fmt: skip
def test_a_damaged_file_is_told(tmp_path, damage):
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({**asked().to_dict(), **damage}))
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        read_asked(file)
