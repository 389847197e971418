"""Trackers are opened, remembered and closed; one that fails, or is slow, costs a warning and nothing else."""

import shutil
import threading

import pytest
from tests.tracking.parts import StandIn, begun

from ddpm_ip import extras
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.run.log import Spare
from ddpm_ip.tracking import trackers
from ddpm_ip.tracking.base import Alert
from ddpm_ip.tracking.trackers import Trackers, chosen, refuse_missing


def opened(folder, *made, step=0):
    by_name = {one.name: one for one in made}
    return Trackers(list(by_name), begun(folder, step), Spare(), by_name.__getitem__)


def test_what_is_not_installed_is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr(trackers, "is_installed", lambda name: name in ("wandb", "mlflow"))
    refuse_missing(None)
    refuse_missing(["mlflow", "wandb"])
    with pytest.raises(ConfigError) as caught:
        refuse_missing(["tensorboard", "wandb", "trackio"])
    assert "tensorboard and trackio are not installed" in str(caught.value)
    assert extras.how_to_install("log", "trackio") in str(caught.value)


def test_by_default_tensorboard_where_it_is_installed(monkeypatch):
    assert chosen(None) == ("tensorboard",)
    assert chosen([]) == ()
    assert chosen(["wandb", "mlflow", "wandb"]) == ("wandb", "mlflow")
    monkeypatch.setattr(trackers, "is_installed", lambda name: False)
    assert chosen(None) == ()


def test_the_configuration_takes_a_word_or_a_list():
    of = lambda value: from_dict({"data": {"name": "digits"}, "train": {"trackers": value}}).train.trackers  # noqa: E731
    assert (of("wandb"), of(["wandb", "mlflow"]), of([]), of(None)) == (("wandb",), ("wandb", "mlflow"), (), None)
    with pytest.raises(ConfigError, match="'tensorboard', 'wandb', 'trackio' or 'mlflow'"):
        of("wand")


def test_all_are_told_the_same_in_order(tmp_path):
    one, other = StandIn("one"), StandIn("other", waits=threading.Event())
    other._waits.set()
    all_ = opened(tmp_path, one, other)
    all_.scalars(3, {"train/loss": 0.5})
    all_.image(3, "samples", tmp_path / "a.png")
    all_.alert(Alert("disk", 4, "full"))
    all_.close()
    told = [("start", 0, None), ("scalars", 3, {"train/loss": 0.5}), ("image", 3, "samples"), ("alert", 4, "disk")]
    assert one.told == other.told == [*told, ("close",)]


def test_a_run_that_continues_has_the_names_of_before(tmp_path):
    opened(tmp_path / "run", StandIn("a"), StandIn("b")).close()
    again = StandIn("b")
    opened(tmp_path / "run", again, step=7).close()
    assert again.told[0] == ("start", 7, "b's")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = StandIn("a")
    opened(tmp_path / "moved", moved).close()
    assert moved.told[0] == ("start", 0, "a's"), "b alone was opened in between, and a is not forgotten"


def test_a_copy_of_a_run_does_not_write_into_its_curves(tmp_path):
    opened(tmp_path / "run", StandIn("a")).close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    copied = StandIn("a")
    opened(tmp_path / "copy", copied).close()
    assert copied.told[0] == ("start", 0, None)


def test_a_damaged_file_of_names_is_set_aside(tmp_path, warnings_of):
    (tmp_path / "trackers.json").write_text("{")
    opened(tmp_path, StandIn("a")).close()
    assert "set aside as trackers.json.damaged-1" in warnings_of()[0]
    assert (tmp_path / "trackers.json.damaged-1").read_text() == "{"


def test_one_that_cannot_start_is_told_nothing_more(tmp_path, warnings_of):
    broken, whole = StandIn("broken", {"start": OSError(111, "Connection refused")}), StandIn("whole")
    all_ = opened(tmp_path, broken, whole)
    all_.scalars(1, {"a": 1.0})
    all_.close()
    assert [what for what, *_ in broken.told] == ["start", "close"]
    assert [what for what, *_ in whole.told] == ["start", "scalars", "close"]
    assert warnings_of() == [
        "the record of broken cannot be written: Connection refused. Training continues; this is not told again"
    ]


@pytest.mark.parametrize("error", [RuntimeError("no answer."), SystemExit(3)])
@pytest.mark.parametrize("ends", [False, True])
def test_one_that_fails_later_is_told_of_once(tmp_path, warnings_of, ends, error):
    """A network may come back; TensorBoard's thread does not."""
    frail = StandIn("frail", {"scalars": error, "close": error})
    frail.one_failure_ends_it = ends
    all_ = opened(tmp_path, frail)
    for step in (1, 2):
        all_.scalars(step, {"a": 1.0})
    all_.close()
    assert [what for what, *_ in frail.told] == ["start", *["scalars"] * (1 if ends else 2), "close"]
    assert len(warnings_of()) == 1
