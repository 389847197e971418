"""A run may go on with another number of processes, or in micro-batches: data, times and noise stay the same bits.

The weights are then those of a run on one process up to the order of summation (here 1e-5 after 50 steps), not bit for
bit. Dropout is not part of that: its masks depend on the process.
"""

import json

import torch
from tests.reliability.recording import assert_same_given, train_and_record
from tests.tiny import alone, largest_difference, meta, numbers, tiny, two_processes, weights

STEPS, BATCH = 50, 16


def config(steps=STEPS, **settings):
    return tiny({"dropout": 0.0}, n_steps=steps, batch_size=BATCH, save_freq=50, flip=True, **settings)


def test_two_one_two_and_micro_batches_are_one(tmp_path):
    into, folder = tmp_path / "given", tmp_path / "run"
    into.mkdir()
    folder.mkdir()

    def train(name, steps=STEPS, resume=None, **settings):
        return lambda: train_and_record(config(steps, **settings), folder / name, into / name, resume)

    assert alone(train("one")) == 0
    assert two_processes(train("changing", 17)) == [0, 0]
    assert alone(train("changing", 34, "latest")) == 0
    assert two_processes(train("changing", resume="latest")) == [0, 0]
    assert alone(train("micro", micro_batch=BATCH // 2)) == 0
    for name in ("changing", "micro"):
        assert_same_given(into / "one", into / name, STEPS, BATCH)
        for part in ("model", "ema"):
            ours, theirs = (weights(folder / which, STEPS, part) for which in ("one", name))
            assert largest_difference(ours, theirs) < 1e-5, (name, part)
        log, expected = torch.tensor(numbers(folder / name)), torch.tensor(numbers(folder / "one"))
        torch.testing.assert_close(log, expected, atol=1e-5, rtol=1e-5)
    still = weights(folder / "changing", 34, "model")
    assert largest_difference(still, weights(folder / "one", STEPS)) > 1e-3, "it learns, so the bound says something"
    history = meta(folder / "changing", STEPS)["history"]
    assert [entry["step"] for entry in history] == [17, 34]
    assert "processes: 2 -> 1" in json.dumps(history[0])
    assert "processes: 1 -> 2" in json.dumps(history[1])
