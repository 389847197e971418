"""A mistake in a configuration or an option ends the command before anything is made, and names the key and the cure.

Each rule by itself, and that every shipped file loads and comes back as it was saved, is in tests/test_config.py;
configurations that do harm are in tests/test_plain.py.
"""

import pytest
import yaml
from tests.tiny import tree

from ddpm_ip.cli import main
from ddpm_ip.config import load

GOOD = yaml.safe_dump(tree())

IN_THE_FILE = {
    "an unknown key": (GOOD + "trian: {n_steps: 1}\n", ["trian", "did you mean train?"]),
    "an unknown variant": (GOOD.replace("name: input", "name: inputs"), ["perturbation.name", "did you mean input?"]),
    "a wrong type": (GOOD.replace("batch_size: 8", "batch_size: eight"), ["train.batch_size", "'eight'"]),
    "true for a number": (GOOD.replace("batch_size: 8", "batch_size: true"), ["train.batch_size", "not true/false"]),
    "null for a number": (GOOD.replace("batch_size: 8", "batch_size: null"), ["train.batch_size", "None"]),
    "a key twice": (GOOD + "data: {name: digits}\n", ["'data' is there twice"]),
    "a tag of Python": (GOOD + "seed: !!python/object/apply:os.getpid []\n", ["python/object/apply"]),
    "several at once": (GOOD + "seed: x\nsead: 1\n", ["seed", "'x'", "sead", "did you mean seed?"]),
}


def command(tmp_path, text, *overrides):
    (tmp_path / "c.yaml").write_text(text)
    return main(["train", "-c", str(tmp_path / "c.yaml"), "-e", str(tmp_path / "run"), *overrides])


@pytest.mark.parametrize("kind", IN_THE_FILE)
def test_a_mistake_in_the_file(tmp_path, capsys, kind):
    text, words = IN_THE_FILE[kind]
    assert command(tmp_path, text) == 2
    said = capsys.readouterr().err
    assert [word for word in [*words, "c.yaml"] if word not in said] == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--train.batch_sise", "4"], ["train.batch_sise", "batch_size"]),
        (["--train.optim.learning_rate", "1"], ["train.optim.learning_rate"]),
        (["--train.optim.betas", "[0.9]"], ["train.optim.betas"]),
        (["--train.optim.betas", "[0.9, 0.99, 0.999]"], ["train.optim.betas"]),
        (["--train.batch_size", "true"], ["train.batch_size", "not true/false"]),
        (["--train.n_steps", "${STEPS}"], ["train.n_steps", "${STEPS}"]),
        (["--perturbation.gama", "0.1"], ["perturbation.gama", "gamma"]),
        (["--nothing.at_all", "1"], ["nothing.at_all"]),
    ],
)
def test_a_mistake_in_an_option(tmp_path, capsys, given, words):
    """Also an override that nothing would use."""
    assert command(tmp_path, GOOD, *given) == 2
    said = capsys.readouterr().err
    assert [word for word in words if word not in said] == []
    assert not (tmp_path / "run").exists()


def test_what_looks_like_something_else_is_what_it_says(tmp_path, monkeypatch):
    """1e-4 is a number, and ${...} is left as the text that it is."""
    monkeypatch.setenv("HERE", "/elsewhere")
    text = GOOD + "seed: 5\n"
    text = text.replace("data:\n  name: digits", "data:\n  name: folder\n  root: ${HERE}/images\n  image_size: 8")
    text = text.replace("n_steps: 6", "n_steps: 6\n  optim: {lr: 1e-4}\n  micro_batch: 0")
    (tmp_path / "c.yaml").write_text(text)
    config = load(tmp_path / "c.yaml")
    assert config.train.optim.lr == 1e-4
    assert config.data.root == "${HERE}/images"
