"""What a run says of itself: its text, its log, and how a notebook shows what it gives."""

import json

import numpy as np
import pytest
from tests.tiny import briefly_trained, tiny, tree

import ddpm_ip as ip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return briefly_trained(tmp_path_factory.mktemp("about") / "run")


def test_a_run_in_words(trained):
    run, new = ip.load(trained), ip.new(tree(), sampling={"sampler": ip.DDIM(), "steps": 20})
    lines = dict(line.split(None, 1) for line in str(run).splitlines())
    parameters = sum(p.numel() for p in tiny().build_network().parameters())
    assert lines == {
        "run": str(trained),
        "trained": "step 6 of 6",
        "images": "digits, 1 x 8 x 8",
        "network": f"unet, {parameters:,} parameters, pred_eps",
        "noise": "linear schedule, 1,000 times",
        "method": "DDPM-IP, gamma 0.1, batches of 8, average 0.9",
        "sampled": "fixed_large, 1,000 steps unless said otherwise",
        "weights": f"{run.sample(1, steps=1).facts['weights'][:12]}, from {trained / 'ckpt/step00000006'}",
    }
    assert run._repr_html_() == f"<pre>{run}</pre>"
    assert "run      in no folder yet\ntrained  not trained yet\n" in str(new)
    assert "ddim,eta=0, 20 steps unless said otherwise" in str(new)
    alone = str(ip.load(trained / "ckpt/step00000006/ema.safetensors", config=tree()))
    assert "step unknown" in alone


def test_a_network_from_elsewhere_in_words(trained, tmp_path):
    said = str(ip.load(ip.load(trained).export(tmp_path / "theirs")))
    assert "run      of weights alone, in no folder\ntrained  step unknown\nimages   unknown, 1 x 8 x 8\n" in said
    assert "method   of another program, format diffusers\n" in said


def test_the_numbers_of_the_log(trained):
    logged = ip.load(trained).logged
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert logged.keys() == lines[0].keys()
    assert logged["loss"].dtype == np.float64
    assert logged["loss"].tolist() == [line["loss"] for line in lines]
    assert ip.new(tree()).logged == {}


def test_evaluating_a_run_is_measuring_its_samples(trained):
    run = ip.load(trained)
    settings = {"sampler": ip.DDIM(), "steps": 2, "block": 16}
    measured = ip.measure(run.sample(40, **settings), run, "pixels", ["fid"])
    found = run.evaluate(40, "pixels", ["fid"], **settings)
    assert (found.values, found.protocol, found.warnings) == (measured.values, measured.protocol, measured.warnings)
    own = ip.ImageSet(run.sample(40, **settings).images, None, "its own", "0" * 64)
    near = run.evaluate(40, "pixels", ["fid"], own, **settings)
    assert near.values["FD-pixels"] == pytest.approx(0, abs=1e-6)
    assert near.protocol["reference"] == "its own"
    assert repr(found) == f"<evaluation: FD-pixels {found.values['FD-pixels']:.6g}>"
    assert found._repr_html_().startswith("<pre>FD-pixels ")
    with pytest.raises(ip.ConfigError, match="a reference is a name, a path, a run or an ImageSet, not int"):
        run.evaluate(40, "pixels", ["fid"], 3, **settings)


def test_an_array_as_data_says_how_it_is_kept(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(ip.ConfigError, match=r"data is an array.*data=ip\.save_images"):
        ip.new(tree(), data=images)
    run = ip.new(tree(), data=ip.save_images(tmp_path / "mine.npz", images))
    assert repr(run.config.data.open()) == "<mine: 4 images 1 x 8 x 8>"
