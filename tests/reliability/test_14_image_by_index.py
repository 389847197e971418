"""Image i depends on weights, sampler, seed, block size and i: not on how many are made, nor on which were made before.

There is no option to make some indices only. What stands for it is that a call makes what is missing: more images
later leave the earlier ones as they are, and any that are removed come back, in whatever order blocks are made.
"""

import random

import pytest
from tests.tiny import contents, one_thread, options, tiny

from ddpm_ip.sample.program import sample

N, BLOCK = 40, 8


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        return make(trained, tmp_path_factory.mktemp("expected") / "images", N)


def make(weights, folder, n, **changes):
    given = {"batch_size": BLOCK, "respace_steps": 4, "seed": 3, **changes}
    sample(tiny(), weights, folder, options(n_samples=n, **given))
    return {name: content for name, content in contents(folder).items() if name[0].isdigit()}


@pytest.mark.parametrize("n", [1, 5, 8, 19, 39])
def test_the_first_images_are_those_of_a_larger_call(trained, tmp_path, expected, n):
    """Also those of a block that is not full."""
    few = make(trained, tmp_path / "a", n)
    assert list(few) == list(expected)[:n]
    assert few.items() <= expected.items()


def test_more_later_keep_the_earlier_ones(trained, tmp_path, expected):
    for n in (3, 11, 12, N):
        found = make(trained, tmp_path / "a", n)
        assert len(found) == n
        assert found.items() <= expected.items()


def test_the_second_half_alone_is_that_of_the_whole(trained, tmp_path, expected):
    """As --indices 20-39 would be, and in no order: blocks are dealt out and made by themselves."""
    make(trained, tmp_path / "a", N)
    gone = random.Random(0).sample(range(N), 17)
    for i in gone:
        (tmp_path / "a" / f"{i:06d}.png").unlink()
    assert make(trained, tmp_path / "a", N) == expected
    for i in range(N // 2, N):
        (tmp_path / "a" / f"{i:06d}.png").unlink()
    assert make(trained, tmp_path / "a", N) == expected


def test_the_seed_matters_to_every_image(trained, tmp_path, expected):
    other = make(trained, tmp_path / "a", N, seed=4)
    assert not [name for name in expected if other[name] == expected[name]]
