"""The images of a call are the same bytes however they come about: one process or two, interrupted, killed, repeated.

With another ``--batch_size`` they differ by rounding, one gray level at most; a folder keeps the one it was begun with.
"""

import hashlib
import os
import random
import signal

import numpy as np
import pytest
from PIL import Image
from tests.tiny import alone, ended, forked, one_thread, options, tiny, two_processes

from ddpm_ip.sample.program import sample
from ddpm_ip.sample.store import sample_files

N, BLOCK = 40, 8


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    """SHA-256 of every file of one uninterrupted call."""
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        found = make(trained, tmp_path_factory.mktemp("expected") / "images")
    assert list(found) == [f"{i:06d}.png" for i in range(N)]
    assert len(set(found.values())) == N
    return found


def make(weights, folder, on_block=lambda block: None, **changes):
    given = {"n_samples": N, "batch_size": BLOCK, "respace_steps": 4, "seed": 3, **changes}
    sample(tiny(), weights, folder, options(**given), on_block)
    return hashes(folder)


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sample_files(folder)}


def pixels(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sample_files(folder)]).astype(int)


def test_two_processes(trained, tmp_path, expected):
    assert two_processes(lambda: make(trained, tmp_path / "a")) == [0, 0]
    assert hashes(tmp_path / "a") == expected


@pytest.mark.parametrize("seed", range(4))
def test_interrupted_after_random_blocks_and_gone_on_with(trained, tmp_path, expected, seed):
    """Every time after some more; what was made stays as it is, and is not made again."""
    rng, made = random.Random(seed), []

    def stop(block):
        made.append(block)
        if rng.random() < 0.5:
            raise KeyboardInterrupt

    for _ in range(N):
        before = hashes(tmp_path / "a") if (tmp_path / "a").exists() else {}
        assert before.items() <= expected.items()
        try:
            assert make(trained, tmp_path / "a", stop) == expected
        except KeyboardInterrupt:
            continue
        break
    assert sorted(made) == list(range(N // BLOCK))


@pytest.mark.parametrize("processes", [1, 2])
def test_gone_on_with_by_another_number_of_processes(trained, tmp_path, expected, processes):
    def stop(block):
        if block == 1:
            os._exit(9)

    assert alone(lambda: make(trained, tmp_path / "a", stop)) == 9
    calls = {1: lambda call: [alone(call)], 2: two_processes}
    assert calls[processes](lambda: make(trained, tmp_path / "a")) == [0] * processes
    assert hashes(tmp_path / "a") == expected


@pytest.mark.parametrize("victim", [0, 13, N - 1])
def test_killed_while_a_png_is_written(trained, tmp_path, expected, victim):
    """Half of a file is on the disk at that moment, and not under its name."""
    ordinary = Image.Image.save

    def save(self, file, *given, **more):
        ordinary(self, file, *given, **more)
        if f"{victim:06d}.png" in os.fspath(getattr(file, "name", "")):
            file.flush()
            os.ftruncate(file.fileno(), file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def call():
        Image.Image.save = save
        make(trained, tmp_path / "a")

    assert ended(forked(call)) == -signal.SIGKILL
    left = hashes(tmp_path / "a")
    assert f"{victim:06d}.png" not in left
    assert left.items() <= expected.items()
    (half,) = (path for path in (tmp_path / "a").iterdir() if f"{victim:06d}.png" in path.name)
    assert half.stat().st_size > 0
    assert make(trained, tmp_path / "a") == expected


def test_another_block_changes_rounding_only(trained, tmp_path):
    make(trained, tmp_path / "a")
    for block in (5, 16):
        make(trained, tmp_path / str(block), batch_size=block)
        assert np.abs(pixels(tmp_path / "a") - pixels(tmp_path / str(block))).max() <= 1
    make(trained, tmp_path / "c", seed=4)
    assert np.abs(pixels(tmp_path / "a") - pixels(tmp_path / "c")).max() > 50
