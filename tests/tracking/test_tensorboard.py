"""TensorBoard's file: groups, the settings as text and as hyperparameters, and steps that are done again."""

import threading

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tests.tracking.parts import begun

from ddpm_ip.run.log import Spare
from ddpm_ip.tracking.metrics import Metrics
from ddpm_ip.tracking.trackers import Trackers


def metrics(folder, step):
    run = begun(folder, step)
    return Metrics(run.folder, step, Trackers(["tensorboard"], run, Spare()))


def test_a_run_that_continues_draws_one_curve(tmp_path):
    before = threading.excepthook
    first = metrics(tmp_path, 0)
    for step in (1, 2, 3):
        first.write(step, {"loss": step, "images_per_s": 10 * step})
    first.evaluation(2, {"FD-pixels": 7})
    first.alert("disk", 3, "it is full")
    first.close()
    again = metrics(tmp_path, 2)
    again.write(3, {"loss": 30, "images_per_s": 31})
    again.close()
    assert threading.excepthook == before, "threads tell of their errors as before"
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    points = {tag: [(p.step, p.value) for p in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert points == {
        "train/loss": [(1, 1.0), (2, 2.0), (3, 30.0)],
        "system/images_per_s": [(1, 10.0), (2, 20.0), (3, 31.0)],
        "eval/FD-pixels": [(2, 7.0)],
    }
    (text, *_) = board.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert text == b"    seed: 1\n", "as code, since it is no Markdown"
    shown = [HParamsPluginData.FromString(c) for c in board._plugin_to_tag_to_content["hparams"].values()]
    values = [dict(one.session_start_info.hparams) for one in shown if one.HasField("session_start_info")]
    assert values[0]["train.n_steps"].number_value == 4
    assert {path.name for path in tmp_path.iterdir()} == {"tensorboard", "metrics.jsonl"}
    assert all(path.is_file() for path in (tmp_path / "tensorboard").iterdir()), "no run beside it for hyperparameters"
