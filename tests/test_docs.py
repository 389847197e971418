"""What pages say is so. The Python of the README and of docs/*.md runs as it is written: each page's blocks in order,
as one program. Commands are read by the parsers, as far as to how images would be made. Links lead somewhere.

docs/samplers.md has every sampler, correction and spacing with its settings and their defaults, docs/training.md every
perturbation, time sampler, weighting and learning-rate schedule, docs/networks.md every key of a network. Where any
page gives a key of the configuration with its default, the default is that.
"""

import argparse
import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pages import NOT_RUN, PROGRAM, SCRIPTS
from tests.pages import PAGES as ALL_PAGES
from tests.tiny import ROOT, finish, start, tree

from ddpm_ip import cli, options, presets
from ddpm_ip.config import Config, from_dict, load, parse_overrides
from ddpm_ip.learning_rate import RateConfig
from ddpm_ip.nn import ADMConfig, UNetConfig
from ddpm_ip.parser import Parser
from ddpm_ip.perturbation import Perturbation
from ddpm_ip.plain import parse_yaml
from ddpm_ip.sampler import AnySampler
from ddpm_ip.sampler.correction import AnyCorrection
from ddpm_ip.sampler.spacing import parsed
from ddpm_ip.settings import keys
from ddpm_ip.table.rows import TableOptions
from ddpm_ip.times import TimesConfig
from ddpm_ip.variants import sections, variant_name, variants
from ddpm_ip.weighting import WeightingConfig

PAGES = [page for page in ALL_PAGES if page.name != "extending.md"]  # whose blocks each stand alone: test_extending.py


def program(text: str) -> str:
    """The Python blocks of a page, each line where it is on the page, and nothing else."""
    lines, inside, run, before = [], False, True, ""
    for line in text.splitlines():
        if not inside and re.fullmatch(r"```python\s*", line):
            inside, run = True, not NOT_RUN.fullmatch(before.strip())
            line = ""
        elif inside and re.fullmatch(r"```\s*", line):
            inside = False
        lines.append(line if inside and run else "")
        before = line or before  # an empty line may stand between
    assert not inside, "a block has no end"
    return "\n".join(lines)


WITH_PYTHON = [page for page in PAGES if program(page.read_text(encoding="utf-8")).strip()]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder beside the configurations; an error names the line of the page."""
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    shutil.copytree(ROOT / "configs", home / "configs")
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program(page.read_text(encoding="utf-8")), encoding="utf-8")
    code, output = finish(start(script, cwd=home))
    assert code == 0, output


def test_the_readme_has_python() -> None:
    assert ROOT / "README.md" in WITH_PYTHON


def test_blocks_stay_on_their_lines() -> None:
    page = [
        "text",
        "```python",
        "a = 1",
        "```",
        "",
        "```shell",
        "b",
        "```",
        "<!-- not run: a -->",
        "",
        "```python",
        "c",
        "```",
        "d",
    ]
    page += ["```python", "e = a", "```"]
    expected = [""] * len(page)
    expected[2], expected[15] = "a = 1", "e = a"
    assert program("\n".join(page)).split("\n") == expected


def test_a_block_without_an_end_is_seen() -> None:
    with pytest.raises(AssertionError, match="no end"):
        program("```python\na = 1")


SHELL = re.compile(r"^```(?:shell|bash)\s*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of this project in the shell blocks of a page, without what is optional, patterns and loops."""
    found = []
    for block in SHELL.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            match = PROGRAM.match(re.sub(r" \[[-]{1,2}\w.*?\]", "", line).strip())
            if match and not re.search(r"\$\w|\.\.\.", line.partition(" #")[0].replace("...]", "]")):
                name = match[1] or SCRIPTS.get(match[2], match[2])
                found.append((name, shlex.split(match[3], comments=True)))
    return found


def read(command: str, words: list[str]) -> None:
    """A command as far as its settings, with a run of digits for whatever run is named."""
    text, arguments, _ = cli._COMMANDS[command]
    parser = Parser(description=text, epilog=cli._epilog(command), allow_abbrev=False)
    arguments(parser)
    args, rest = parser.parse_known_args(words)
    if command in ("sample", "calibrate"):
        seedless = argparse.Namespace(**{**vars(args), "seed": None})
        config = configured(options.single_overrides(seedless, parse_overrides(rest)))
        config.sampling.filled("fixed_small")
        found = config.sampling.spacing == "optimised" or any(c.name == "auto" for c in config.sampling.corrections)
        if not found:  # what is looked up beside weights is not here
            config.sampling.filled("fixed_small").check(config.diffusion.schedule, True, config.classes)
    elif command in ("table", "compare-samplers"):
        rows, common = options.many_overrides(args, parse_overrides(rest))
        wanted = TableOptions([configured({**common, **row}).sampling for row in rows], args.steps, args.evaluations)
        assert all(slot.why_not is None for slot in wanted.slots(configured(common)))
    elif command == "train":
        given = parse_overrides(rest)
        if args.config is not None and ((ROOT / args.config).is_file() or str(args.config) in presets.names()):
            load(args.config if str(args.config) in presets.names() else ROOT / args.config, without_data(given))
        else:
            configured(given)


def configured(overrides: Mapping[str, Any]) -> Any:
    return from_dict({**tree(), "classes": {"count": 1000}}, "a page", without_data(overrides))


def without_data(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Options but for those about data, whose files are not here."""
    return {k: v for k, v in overrides.items() if not k.startswith(("data.", "reference"))}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_can_be_read(page: Path) -> None:
    for command, words in commands(page.read_text(encoding="utf-8")):
        try:
            read(command, words)
        except BaseException as error:
            pytest.fail(f"ddpm-ip {command} {shlex.join(words)}: {error!r}")


def test_the_commands_in_the_tables_of_a_page_can_be_read() -> None:
    """Such as the one command for each thing in the README: what a table holds is no block, and is copied no less."""
    seen = set()
    for page in ALL_PAGES:
        for row in re.findall(r"^\|.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE):
            for command, words in commands(
                "".join(f"```shell\n{cell}\n```\n" for cell in re.findall(r"`([^`]+)`", row))
            ):
                if words and not set("[|{*") & set("".join(words)):  # a form, and no command
                    read(command, words)
                    if page.name == "README.md":
                        seen.add(command)
    assert seen >= {"sample", "train", "evaluate", "table", "sweep", "exposure", "calibrate", "import", "report"}


def test_commands_are_seen() -> None:
    page = "```shell\nddpm-ip sample --a 'b c'  # why\n"
    page += "accelerate-launch --x scripts/train_ddpm.py -c C [-e E] \\\n  -r latest\n"
    page += "ddpm-ip table $x\npip install a\n```\n```\nddpm-ip no\n```"
    assert commands(page) == [("sample", ["--a", "b c"]), ("train", ["-c", "C", "-r", "latest"])]
    with pytest.raises(Exception, match="did you mean"):
        read("sample", shlex.split("--weights W --n_samples 1 --save_dir D --spacing logsmr"))


def test_times_takes_its_own_options() -> None:
    parser = Parser(epilog=cli._epilog("times"), allow_abbrev=False)
    cli._COMMANDS["times"][1](parser)
    told = parser.format_help()
    assert "--corrections" in told
    assert "--afs" not in told


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    bare = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = [re.sub(r"\[(.*?)\]\(.*?\)|[`*]", r"\1", title) for title in re.findall(r"^#+ (.+)$", bare, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


OTHERS = [ROOT / name for name in ("benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]


@pytest.mark.parametrize("page", [*ALL_PAGES, *OTHERS], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    bare = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", bare):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_files_of_results_are_there_and_listed() -> None:
    """Names of records on the pages, and the table of benchmarks/README.md, which has each of them."""
    there = {path.name for path in (ROOT / "benchmarks/results").glob("*.json")}
    named = {page: set(re.findall(r"`(?:benchmarks/results/)?(\w+\.json)`", page.read_text())) for page in ALL_PAGES}
    places = re.compile(r"(cpu|h\d+(x\d)?)_\w+\.json")
    assert {name for names in named.values() for name in names if places.fullmatch(name)} <= there
    listed = set(re.findall(r"`(\w+\.json)`", (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")))
    assert there - listed == set()


def test_the_table_of_calibrations_is_that_of_its_record() -> None:
    """Rows of docs/exposure-bias.md: means over seeds, what auto leaves, and that every goal was met."""
    page = (ROOT / "docs/exposure-bias.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "benchmarks/results/h200_calibration.json").read_text())["rows"]
    told = re.findall(r"^\| (0\.1|0) \| `(\w+)` \| (\d+) \| (.*) \|$", page, re.M)
    cells = {(gamma, sampler, int(steps)): rest.split(" | ") for gamma, sampler, steps, rest in told}
    assert len(told) == len(cells) == len(found)
    for row in found:
        none, auto = (sum(row[key]) / len(row[key]) for key in ("none", "auto"))
        least = min(row["scan"]["rows"].values()) / row["scan"]["none"]
        asked = (0.55 if row["steps"] <= 13 else 0.6 if row["steps"] <= 20 else 0.8) if least < 0.85 else 1.02
        shown = cells["0.1" if row["network"] == "ip" else "0", row["sampler"], row["steps"]]
        assert shown[:3] == [f"{none:.1f}", f"{auto:.1f}", f"**{auto / none:.2f}**"]
        assert shown[3].startswith(f"{least:.2f} (")
        assert auto / none <= asked


METHODS, TRAINING = ((ROOT / f"docs/{page}.md").read_text(encoding="utf-8") for page in ("samplers", "training"))
TABLES = {
    "Perturbation": Perturbation,
    "Times": TimesConfig,
    "Weightings": WeightingConfig,
    "Learning rate": RateConfig,
}


def section(text: str, title: str) -> str:
    """What stands under a heading, as far as the next one of its kind."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


@pytest.mark.parametrize("method", [*variants(AnySampler), *variants(AnyCorrection)], ids=variant_name)
def test_the_page_of_samplers_has_every_setting_with_its_default(method: type) -> None:
    check_settings(METHODS, method)


@pytest.mark.parametrize("title", TABLES)
def test_the_page_of_training_has_every_setting_with_its_default(title: str) -> None:
    told = section(TRAINING, title)
    for method in variants(TABLES[title]):
        check_settings(told, method)
    names = re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)
    assert names == [variant_name(method) for method in variants(TABLES[title])]


def check_settings(text: str, method: type) -> None:
    """A row begins with the name; each setting is followed by its default in brackets, which may be in other words."""
    rows = re.findall(rf"^\| `{variant_name(method)}` \|.*(?:\n\| \.\.\. .*)*", text, re.MULTILINE)
    assert len(rows) == 1
    for field in dataclasses.fields(method):
        if field.name == "name":
            continue
        assert f"`{field.name}`" in rows[0], field.name
        told = re.search(rf"`{field.name}`(?:, `\w+`)* \(`?([^)`]*)`?\)", rows[0])
        if field.default is None or isinstance(field.default, tuple):
            continue
        assert told, f"{field.name} has no default"
        shown = str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}"
        assert told[1] in (shown, shown.removesuffix(".0"), f"{field.default:g}" if shown[0].isdigit() else shown)


@pytest.mark.parametrize(("title", "network"), [("DDPM's U-Net", UNetConfig), ("ADM's U-Net", ADMConfig)])
def test_the_page_of_networks_has_every_key_with_its_default(title: str, network: type) -> None:
    page = section((ROOT / "docs/networks.md").read_text(encoding="utf-8"), title)
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    found = {field.name: plain(field.default) for field in dataclasses.fields(network) if field.name != "name"}
    assert {key: value(cell) for key, cell in told.items()} == found


def test_the_page_of_networks_counts_parameters_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Embedding, "reset_parameters", lambda self: None)  # without memory it takes seconds
    told = re.findall(r"^\| (\[\w+\]\(\.\./configs.*)", (ROOT / "docs/networks.md").read_text(encoding="utf-8"), re.M)
    rows = [[cell.strip() for cell in row.split("|")] for row in told]
    listed = {name: row for row in rows for name in re.findall(r"\[(\w+)\]", row[0])}
    assert set(listed) == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    counted: dict[Any, int] = {}
    for name, (names, _, network, count, gamma, size, _) in listed.items():
        config = load(ROOT / f"configs/{name}.yaml")
        assert network == config.model.name
        assert gamma == f"{getattr(config.perturbation, 'gamma', 0):g}"
        steps = [f"{config.train.batch_size} x {config.train.n_steps // 1000:,}k"]
        place = re.findall(r"\[(\w+)\]", names).index(name)
        assert steps[0] in size.split(", ")[min(place, size.count(", "))]
        built = config.model, config.diffusion.learned_variance, config.classes
        if built not in counted:
            with torch.device("meta"):
                counted[built] = sum(p.numel() for p in config.build_network().parameters())
        assert f"{counted[built]:,}" in count


KEYS = {key for key in keys() if "." in key}


def plain(given: Any) -> Any:
    """A default as YAML has it."""
    return [plain(each) for each in given] if isinstance(given, tuple) else given


def value(cell: str) -> Any:
    """What a cell says is the default: YAML, in any case of marks; a number as a number."""
    found = parse_yaml(cell.replace("`", ""), "a page")
    return float(found) if isinstance(found, str) and re.fullmatch(r"\d+e-?\d+", found) else found


def defaults(key: str) -> list[Any]:
    """Of a key of the configuration, in all variants of its section."""
    *path, last = key.split(".")
    classes: list[type] = [Config]
    for name in path:
        classes = [inner for cls in classes for inner in sections(cls).get(name, [])]
    found = [field for cls in classes for field in dataclasses.fields(cls) if field.name == last]
    made = [f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in found]
    return [plain(default) for default in made if default is not dataclasses.MISSING]


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_the_defaults_of_keys_on_a_page_are_those_of_the_configuration(page: Path) -> None:
    """Of a table whose second column is called so, the rows that begin with keys and go on with as many values."""
    tables = re.findall(r"^\| \S[^|]* \| default \|.*\n((?:\|.*\n)+)", page.read_text(encoding="utf-8"), re.M)
    for names, cell in re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \| (.*?) \|", "".join(tables), re.M):
        named = re.findall(r"`([\w.]+)`", names)
        told = [cell] if len(named) == 1 else cell.split(", ")
        if set(named) <= KEYS and len(named) == len(told) and "`data." not in names:
            for key, text in zip(named, told, strict=True):
                if (found := defaults(key)) and not key.endswith(".name"):
                    assert value(text) in found, key


def test_the_table_of_keys_has_every_key_of_the_method() -> None:
    page = (ROOT / "docs/DDPM-IP.md").read_text(encoding="utf-8")
    own = ("train.times.", "train.weighting.", "train.lr_schedule.", "sampling.", "data.", "model.")
    missing = [key for key in KEYS if not key.startswith(own) and f"`{key}`" not in page and not key.endswith(".name")]
    assert missing == []


def test_the_page_of_samplers_has_every_spacing() -> None:
    table = METHODS.partition("## Times")[2].partition("```")[0]
    known = set(re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    for name in ("uniform", "uniform-leading", "uniform-linspace", "uniform-trailing", "quad", "logsnr", "exponential",
                 "karras", "beta", "optimised"):  # fmt: skip
        assert name in known
        parsed(name)


@pytest.mark.parametrize(
    "room",
    [*"sampler sample run tracking train table exposure sweep interop ui commands".split(), "sampler/correction"],  # noqa: SIM905
)
def test_the_architecture_names_every_module_of_a_room(room: str) -> None:
    rooms = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Rooms")[2].split("```")[1]
    modules = [path.stem for path in (ROOT / "src/ddpm_ip" / room).glob("*.py") if path.stem != "__init__"]
    assert [module for module in modules if not re.search(rf"\b{module}\b", rooms)] == []
    assert [name for name in re.findall(r"\w+\.py", rooms) if not [*(ROOT / "src").rglob(name)]] == []
