"""What holds for any numbers: every image once an epoch, no draw twice, every image of a call made by one process.

With hypothesis, which looks for the smallest example against it; ``--long`` plays ten times as many. Others of the kind
are next to their modules: the order in tests/data/test_order.py, Philox in tests/test_draws.py, configurations in
tests/test_config.py.
"""

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.tiny import tiny, tree

from ddpm_ip.config import from_dict, merge
from ddpm_ip.data.order import order
from ddpm_ip.draws import Draws, Stream
from ddpm_ip.sample import program
from ddpm_ip.train.step import own_rows


@given(seed=st.integers(0, 2**64 - 1), n=st.integers(1, 60), share=st.integers(1, 9), world=st.integers(1, 8))
def test_the_processes_of_a_run_see_every_image_once_an_epoch(seed, n, share, world):
    batch = share * world
    config = tiny(batch_size=batch)
    seen = []
    for step in range(-(-2 * n // batch)):
        for rank in range(world):
            rows = own_rows(config, SimpleNamespace(num_processes=world, process_index=rank))
            assert len(rows) == share
            seen += order(seed, step * batch + np.array(rows), n).tolist()
    assert sorted(seen[:n]) == sorted(seen[n : 2 * n]) == list(range(n))


@given(
    seeds=st.sets(st.integers(0, 2**64 - 1), min_size=2, max_size=3), first=st.integers(0, 2**31), n=st.integers(1, 3)
)
def test_no_two_draws_are_the_same(seeds, first, n):
    """Of whatever seed, step, row and stream: 128 bits each, so that two equal ones are a collision of places."""
    rows = torch.arange(first, first + n)
    found = [
        tuple(words)
        for seed in seeds
        for step in (first, first + 1)
        for stream in Stream
        for words in Draws(seed, step, rows).bits(stream, 4).tolist()
    ]
    assert len(set(found)) == len(found) == len(seeds) * 2 * len(Stream) * n


@given(
    n=st.integers(1, 300),
    block=st.integers(1, 80),
    world=st.integers(1, 5),
    there=st.sets(st.integers(0, 299)),
)
def test_the_blocks_of_a_call_are_exactly_the_images_that_are_missing(n, block, world, there):
    """Dealt out to the processes without overlap; each image is in the block of its index, whatever is there."""
    whole = {i for i in there if i < n}
    shape = (1, 8, 8)
    store = SimpleNamespace(look=lambda count, given: (whole, []), folder="a")
    made = []
    for rank in range(world):
        engine = SimpleNamespace(process_index=rank, num_processes=world, wait_for_everyone=lambda: None)
        generator = SimpleNamespace(model=SimpleNamespace(engine=engine))
        share = program._missing(SimpleNamespace(generator=generator, size=block, shape=shape), store, n)
        for number, indices in share.items():
            assert indices == range(number * block, min((number + 1) * block, n))
            assert not whole.issuperset(indices)
            made += indices
    assert len(made) == len(set(made))
    assert set(range(n)) - whole <= set(made) <= set(range(n))


@given(
    seed=st.integers(0, 2**64 - 1),
    gamma=st.floats(0, 10, allow_subnormal=False),
    lr=st.floats(1e-12, 1e3),
    decay=st.floats(0, 1, exclude_max=True),
    batch=st.integers(1, 10**6),
    objective=st.sampled_from(["pred_eps", "pred_x0", "pred_v"]),
    mults=st.lists(st.integers(1, 8), min_size=1, max_size=4),
)
def test_a_configuration_comes_back_from_its_text(seed, gamma, lr, decay, batch, objective, mults):
    import yaml

    changes = {"seed": seed, "perturbation.gamma": gamma, "train.optim.lr": lr, "train.ema_decay": decay}
    changes |= {"train.batch_size": batch, "diffusion.objective": objective, "model.dim_mults": mults}
    changes |= {"model.use_attn": [False] * len(mults)}
    config = from_dict(merge(tree(), changes))
    text = yaml.safe_dump(config.to_dict())
    again = from_dict(yaml.safe_load(text))
    assert again == config
    assert yaml.safe_dump(again.to_dict()) == text
    assume(gamma != 0.1)
    assert again != from_dict(merge(tree(), {**changes, "perturbation.gamma": 0.1}))
