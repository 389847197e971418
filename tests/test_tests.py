"""What is asked of the tests themselves: none asserts seconds, and each stands where the module that it tests does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import SHARE

import ddpm_ip

TESTS, PACKAGE = Path(__file__).parent, Path(ddpm_ip.__file__).parent
FILES = [path.relative_to(TESTS) for path in sorted(TESTS.rglob("*.py")) if "gpu" not in path.parts]
OF_NO_MODULE = {"test_imports.py", "test_shapes.py", "test_tests.py"}  # these ask something of all files
OF_NO_MODULE |= {"report/test_hostile.py"}  # this of all that reads a run
OF_NO_MODULE |= {"test_docs.py", "test_extending.py", "test_public.py"}  # and these of what users read and copy
OF_NO_MODULE |= {"test_pages.py", "test_site.py"}
OF_NO_MODULE |= {"test_examples.py"}  # or run
OF_NO_MODULE |= {
    "sampler/test_everything.py",
    "train/test_everything.py",
    "sampler/correction/test_graphs.py",
}  # of all samplers and corrections
OF_NO_MODULE |= {"sampler/test_visits.py", "exposure/test_shrinkage.py"}  # of walks and graphs; of a model on paper
OF_NO_MODULE |= {"sampler/test_tables.py"}  # this of the tests' own tables.py
OF_NO_MODULE |= {"stress/test_stress.py"}  # and this of everything that can happen to them
OF_NO_MODULE |= {str(path) for path in FILES if path.parts[0] == "reliability" and path.name.startswith("test_")}
CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.process_time", "time.thread_time"}
CLOCKS |= {f"{clock}_ns" for clock in CLOCKS} | {"datetime.datetime.now", "datetime.datetime.utcnow"}
ADDS = {"append", "extend", "add", "insert"}


def full_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tells_time(node: ast.AST, timed: set[str], names: dict[str, str]) -> bool:
    """Whether an expression reads a clock, or a variable that came of one."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in timed:
            return True
        if isinstance(part, ast.Attribute | ast.Name):
            first, _, rest = ast.unparse(part).partition(".")
            if f"{names.get(first, first)}.{rest}".rstrip(".") in CLOCKS:
                return True
    return False


def variables(node: ast.AST, timed: set[str], names: dict[str, str]) -> Iterator[str]:
    """Those that a statement sets to a time, or adds one to."""
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        if node.value is not None and tells_time(node.value, timed, names):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    elif isinstance(node, ast.Call) and any(tells_time(given, timed, names) for given in node.args):
        variable, _, method = ast.unparse(node.func).rpartition(".")
        if method in ADDS:
            yield variable


def timed_assertions(tree: ast.Module) -> list[int]:
    """The lines of assertions that depend on a clock."""
    found, names = [], full_names(tree)
    for block in tree.body:  # a function with those inside it
        timed: set[str] = set()
        while more := {v for node in ast.walk(block) for v in variables(node, timed, names)} - timed:
            timed |= more
        asserted = [node for node in ast.walk(block) if isinstance(node, ast.Assert)]
        found += [node.lineno for node in asserted if tells_time(node.test, timed, names)]
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_test_asserts_seconds(path: Path) -> None:
    """Count, order or wait for an event instead; what is fast is measured in benchmarks/."""
    assert timed_assertions(ast.parse((TESTS / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("start = time.monotonic()\n    work()\n    assert time.monotonic() - start < 5", True),
        ("start = time.time_ns()\n    took = time.time_ns() - start\n    assert took < 5", True),
        ("seen = []\n    seen.append(clock())\n    fast = seen[-1] - seen[0] < 1\n    assert fast", True),
        ("while not done():\n        assert 9 > time.perf_counter()", True),
        ("begun = datetime.now()\n    assert (datetime.now() - begun).seconds < 3", True),
        ("if (took := clock() - 3):\n        assert took", True),
        ("old = time.time() - 3600\n    os.utime(path, (old, old))\n    assert swept(path)", False),
        ("time.sleep(1)\n    assert steps == [1, 2]", False),
        ("start = work()\n    assert start.time == 3", False),
    ],
)
def test_the_rule_sees_a_clock(code: str, wrong: bool) -> None:
    imports = "import time\nfrom time import perf_counter as clock\nfrom datetime import datetime\n"
    assert bool(timed_assertions(ast.parse(f"{imports}def test_it():\n    {code}\n"))) == wrong


def test_each_test_stands_where_its_module_does() -> None:
    """tests/room/test_x.py tests src/ddpm_ip/room/x.py, or the package of that name."""
    homeless = set()
    for path in FILES:
        module = PACKAGE / path.with_name(path.name.removeprefix("test_"))
        if path.name.startswith("test_") and not (module.exists() or module.with_suffix("").is_dir()):
            homeless.add(str(path))
    assert homeless == OF_NO_MODULE


@pytest.mark.large
@pytest.mark.parametrize("case", range(3 * SHARE))
def test_a_tenth_of_a_large_test_is_run(case: int, request: pytest.FixtureRequest) -> None:
    mine = [item for item in request.session.items if getattr(item, "originalname", "") == request.function.__name__]
    if len(mine) > 1:  # it was not asked for by its name
        assert len(mine) == (3 * SHARE if request.config.getoption("--long") else 3)
