"""What holds for all tests: one core each, and of the large ones a tenth, unless ``--long`` asks for them whole."""

import os

# Two cores, several processes: threads that wait must sleep, not spin. Read when torch is loaded, here and in children.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import gc
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# Where there is no GPU its kernels run in Triton's interpreter; Triton asks when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from tests.tiny import briefly_trained, briefly_trained_with_classes, one_thread

EXAMPLES = 300  # of a property test, which says no number itself
SHARE = 10  # without --long, one in so many examples of a property test, and cases of a large one
SEED = 0  # of the choice of cases: the same everywhere


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run large tests whole; without it a tenth of their cases")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses how property tests are run; no health of theirs is a matter of time."""
    if not config.pluginmanager.hasplugin("hypothesispytest"):  # a GPU machine, whose tests need none
        return
    from hypothesis import HealthCheck, settings

    given = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("long", max_examples=EXAMPLES, print_blob=True, **given)
    settings.register_profile("short", max_examples=EXAMPLES // SHARE, derandomize=True, **given)
    settings.load_profile("long" if config.getoption("--long") else "short")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps a tenth of the cases of each test that is marked ``large``, and at least one."""
    if addresses := [item.nodeid for item in items if " at 0x" in item.nodeid]:  # another one in each worker
        raise pytest.UsageError(f"{addresses[0]}: give its cases ids that are no addresses")
    if config.getoption("--long"):
        return
    cases: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("large"):
            cases[item.nodeid.partition("[")[0]].append(item)
    left_out = {item for found in cases.values() for item in sorted(found, key=_lot)[-(-len(found) // SHARE) :]}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the collected tests have imported is no garbage: to look through it again and again takes minutes.

    (Triton's interpreter makes objects without end, and each of them may be the one at which Python looks.)
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _lot(item: pytest.Item) -> str:
    """What decides whether a case is among the tenth."""
    return hashlib.sha256(f"{SEED} {item.name}".encode()).hexdigest()


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test is a program of its own, on one core, unless it is one of a GPU."""
    if request.node.get_closest_marker("gpu") is None:
        one_thread(monkeypatch)


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests cache is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("DDPM_IP_CACHE", os.path.join(os.environ["XDG_CACHE_HOME"], "ddpm-ip"))
        yield


@pytest.fixture(autouse=True)
def quiet() -> None:
    """A test begins with a log that nobody has set up: handlers of runs before it write to folders that are gone."""
    log = logging.getLogger("ddpm_ip")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps, to be read alone."""
    return briefly_trained(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="session")
def trained_with_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a class-conditional run of eight steps, to be read alone."""
    return briefly_trained_with_classes(tmp_path_factory.mktemp("trained") / "classes")


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The package's log records."""
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
