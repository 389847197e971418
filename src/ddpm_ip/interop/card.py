"""The card of an exported model: README.md with the metadata that huggingface.co reads, and what a reader must know.

The metadata are the hub's: licence, tags, data sets, and each measured value as a result of ``model-index`` (which
huggingface_hub reads as EvalResult). Numbers are of the exported weights alone, known by the SHA-256 of their file, and
each stands with its protocol and under the name that :mod:`ddpm_ip.metric` gives it: a distance in other features than
the Inception's is never an FID.

Source: the hub's model cards (https://huggingface.co/docs/hub/model-cards), metadata as huggingface_hub 1.0 checks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_ip import __version__
from ddpm_ip.config import Config
from ddpm_ip.metric import find
from ddpm_ip.perturbation import label
from ddpm_ip.plain import visible, yaml_text
from ddpm_ip.report.evaluated import find_evaluations
from ddpm_ip.report.reading import PROVENANCE, Problems, json_of, results_of
from ddpm_ip.run.folder import config_near
from ddpm_ip.run.identity import changes_in, imported_in, method
from ddpm_ip.run.provenance import earlier
from ddpm_ip.run.record import Record
from ddpm_ip.run.weights import Weights

TASK = "unconditional-image-generation"
HUB = {"cifar10": "cifar10", "mnist": "mnist"}  # data sets that the hub has under a name
MOST_RESULTS, MOST_CHANGES = 200, 50
LONGEST = 2000  # characters of a text from outside
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # of a licence, as the hub has them


class Exported(NamedTuple):
    """What was exported.

    Attributes:
        format: ``diffusers`` or ``safetensors``.
        name: of the model.
        licence: of the weights, if somebody said one.
        file: of the tensors, relative to the card.
        sha256: of that file.
    """

    format: str
    name: str
    licence: str | None
    file: str
    sha256: str


class Facts(NamedTuple):
    """What a run knows about weights.

    Attributes:
        provenance: of the processes that trained them, the newest first.
        history: of the configuration.
        results: the numbers that were measured for these weights, and for no others.
        imported: where imported weights came from.
    """

    provenance: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    results: Sequence[Record]
    imported: Mapping[str, Any] | None


def card(config: Config, weights: Weights, source: Path, about: Exported) -> str:
    """README.md.

    Args:
        config: with which the weights are sampled.
        weights: the exported ones.
        source: where they were found; the folder of their run has what was measured for them.
        about: what was exported.
    """
    facts = facts_of(weights, source)
    parts = [
        f"---\n{yaml_text(metadata(config, facts, about))}---",
        f"# {_text(about.name)}",
        *_what_it_is(config, weights, facts, about),
        "## How to use it",
        *_how_to_use(config, about),
        "## How it was trained",
        *_training(config, weights, facts),
        "## Results",
        *_results(facts.results),
        "## Limits",
        _limits(config, facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def facts_of(weights: Weights, source: Path) -> Facts:
    """What the folder of a run, and the weights themselves, say of weights. What is damaged there is left out."""
    checkpoint, header = weights.checkpoint, weights.header
    near = config_near(source if checkpoint is None else checkpoint.path)
    meta: Mapping[str, Any] = {} if checkpoint is None else checkpoint.meta
    provenance: Sequence[Mapping[str, Any]] = []
    results: list[Record] = []
    if near is not None:
        folder = near.parent.absolute()
        problems = Problems(folder)
        found = [*find_evaluations(folder, {weights.sha256}, problems).records, *results_of(folder, problems)]
        results = list({record.identity(): record for record in found if record.weights == weights.sha256}.values())
        if header is None:  # a file that says what it is may lie anywhere
            known = json_of(folder / PROVENANCE, problems)
            provenance = [] if known is None else earlier(known)
    history = changes_in(meta) if header is None else list(header.history)
    return Facts(provenance, history, results[:MOST_RESULTS], imported(weights))


def imported(weights: Weights) -> Mapping[str, Any] | None:
    """Where imported weights came from; None for weights that were trained here from the beginning."""
    if weights.header is not None:
        return weights.header.imported
    if weights.own is not None:
        return {"origin": weights.origin, "sha256": weights.sha256}
    return None if weights.checkpoint is None else imported_in(weights.checkpoint.meta)


def metadata(config: Config, facts: Facts, about: Exported) -> dict[str, Any]:
    """What huggingface.co reads of a card."""
    licence = about.licence or _licence(facts.imported)
    known = licence is None or IDENTIFIER.fullmatch(licence.lower()) is not None
    dataset = HUB.get(config.data.name)
    return {
        "license": ("unknown" if licence is None else licence.lower()) if known else "other",
        **({} if known else {"license_name": licence}),
        **({"library_name": "diffusers"} if about.format == "diffusers" else {}),
        "pipeline_tag": TASK,
        "tags": ["diffusion", "ddpm", "ddpm-ip", TASK, *(["class-conditional"] if config.classes else [])],
        **({} if dataset is None else {"datasets": [dataset]}),
        **({"model-index": [_index(config, facts.results, about.name)]} if facts.results else {}),
    }


def _index(config: Config, results: Sequence[Record], name: str) -> dict[str, Any]:
    """Each number as a result; what it depends on is in its arguments."""
    return {
        "name": name,
        "results": [
            {
                "task": {"type": TASK, "name": "Image generation"},
                "dataset": {
                    "type": HUB.get(config.data.name, config.data.name),
                    "name": record.reference or "unknown",
                    "args": _given(n_images=record.n_reference, sha256=record.reference_sha256),
                },
                "metrics": [
                    {
                        "type": record.metric.lower(),
                        "value": record.value,
                        "name": record.metric,
                        "args": _given(
                            sampler=record.row or None,
                            steps=record.steps,
                            spacing=record.spacing,
                            evaluations=record.evaluations,
                            seed=record.seed,
                            n_images=record.n_images,
                            extractor=record.described_extractor,
                            weights=record.weights,
                            protocol=record.line,
                        ),
                    }
                ],
            }
            for record in results
        ],
    }


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _what_it_is(config: Config, weights: Weights, facts: Facts, about: Exported) -> Iterator[str]:
    channels, height, width = config.shape
    name = method(label(config.perturbation), facts.history, facts.imported, weights.step)
    kind = "class-conditional diffusion model" if config.classes else "diffusion model"
    yield (
        f"A {kind} of images of {width} x {height} px with {channels} channel{'s' * (channels != 1)}: "
        f"**{_text(name)}**, {_steps(weights)}, made with [ddpm-ip](https://pypi.org/project/ddpm-ip) {__version__}."
    )
    d = config.diffusion
    licence = about.licence or _licence(facts.imported) or "unknown"
    rows = {
        "Method": name,
        "Input perturbation": _perturbation(config),
        "Weights": _averaged(config, weights, facts),
        "Training steps": "unknown" if weights.step is None else f"{weights.step:,}",
        "Data": config.data.name,
        "Fingerprint of the data": _fingerprint(weights, facts),
        "Diffusion": f"{d.total_steps} steps, {d.beta_schedule} betas, {d.objective}, variance {d.var_type}",
        "Classes": None if config.classes is None else str(config.classes.count),
        "Licence": licence,
        f"SHA-256 of {about.file}": about.sha256,
        "SHA-256 of the weights that it is made from": weights.sha256,
    }
    yield "\n".join(["| | |", "|---|---|", *(f"| {_text(k)} | {_text(v)} |" for k, v in rows.items() if v)])


def _averaged(config: Config, weights: Weights, facts: Facts) -> str:
    """Whether they are an average, and which."""
    if weights.averaged is True:
        ours = facts.imported is None or weights.step
        return "an exponential moving average" + (f" (decay {config.train.ema_decays[0]:g})" if ours else "")
    if weights.averaged is False:
        return "those of the last step, not an average"
    return "not known to be an average" if weights.averaged == "unknown" else f"an average ({weights.averaged})"


def _steps(weights: Weights) -> str:
    return "trained for an unknown number of steps" if weights.step is None else f"after {weights.step:,} steps"


def _perturbation(config: Config) -> str:
    """The perturbation and its settings: ``input, gamma 0.1``."""
    plain = config.to_dict()["perturbation"]
    settings = [f"{key} {value}" for key, value in plain.items() if key != "name" and value is not None]
    return ", ".join([str(plain["name"]), *settings])


def _fingerprint(weights: Weights, facts: Facts) -> str | None:
    if weights.checkpoint is not None and (found := weights.checkpoint.meta.get("data_fingerprint")):
        return str(found)
    known = [one["data"].get("fingerprint") for one in facts.provenance if isinstance(one.get("data"), Mapping)]
    return str(known[0]) if known and known[0] else None


def _how_to_use(config: Config, about: Exported) -> Iterator[str]:
    channels, height, width = config.shape
    folder = "."
    given = about.file if about.format == "safetensors" else folder
    labels = " --class 0" if config.classes else ""
    yield (
        "With ddpm-ip (`pip install ddpm-ip`), in this folder, by any of its samplers:\n\n```shell\n"
        f"ddpm-ip sample --weights {given} --n_samples 16 --save_dir samples --sampler dpm_solver --respace_steps 20"
        f"{labels}\n```"
    )
    if about.format != "diffusers":
        yield (
            "The file is a whole model: its header holds the configuration. In Python:\n\n```python\n"
            f'import ddpm_ip as ip\n\nrun = ip.load("{about.file}")\nimages = run.sample(4).images  # uint8 (4, '
            f"{channels}, {height}, {width})\n```"
        )
        return
    steps = config.diffusion.total_steps
    start = f'from diffusers import DDPMPipeline\n\npipeline = DDPMPipeline.from_pretrained("{folder}")'
    if config.classes is None:
        yield (
            f"With diffusers:\n\n```python\n{start}\n"
            f"images = pipeline(batch_size=4, num_inference_steps={steps}).images\n```"
        )
        return
    yield (
        "With diffusers, whose DDPMPipeline knows no classes, step by step:\n\n```python\nimport torch\n"
        f"{start}\nlabels = torch.arange(4) % {config.classes.count}\n"
        f"images = torch.randn(4, {channels}, {height}, {width})\n"
        f"pipeline.scheduler.set_timesteps({steps})\n"
        "with torch.no_grad():\n    for t in pipeline.scheduler.timesteps:\n"
        "        output = pipeline.unet(images, t, class_labels=labels).sample\n"
        "        images = pipeline.scheduler.step(output, t, images).prev_sample  # at the end in [-1, 1]\n```\n\n"
        "(For guidance without a class ddpm-ip is needed: a label of -1 says nothing there, and diffusers has no such "
        "label.)"
    )


def _training(config: Config, weights: Weights, facts: Facts) -> Iterator[str]:
    t, lines = config.train, list[str]()
    if facts.imported is not None:
        origin = [f"{_text(key)}: {_text(value)}" for key, value in facts.imported.items() if value is not None]
        yield "The weights were **imported** from elsewhere:\n\n" + "\n".join(f"* {line}" for line in origin)
    if weights.step or facts.imported is None:
        optim = t.optim
        lines += [f"{_text(optim.name)}, learning rate {optim.lr:g}, {t.lr_warmup} steps of warm-up"]
        lines += [f"batches of {t.batch_size} images{', mirrored at random' if t.flip else ''}, seed {config.seed}"]
        decays = " and ".join(f"{decay:g}" for decay in t.ema_decays)
        lines += [f"moving average with decay {decays}", f"perturbation: {_text(_perturbation(config))}"]
    for key in ("hardware", "versions", "command"):
        told = dict.fromkeys(_value(one[key]) for one in facts.provenance if one.get(key))
        lines += [f"{key}: {_text(' / '.join(list(told)[:5]))}"] if told else []
    yield "\n".join(f"* {line}" for line in lines)
    if facts.history:
        changes = [f"* from step {e['step']}: {_text('; '.join(map(str, e['changes'])))}" for e in facts.history]
        yield "The settings changed on the way:\n\n" + "\n".join(changes[:MOST_CHANGES])
    text = yaml_text(config.to_dict()).replace("```", "'''")
    yield f"<details><summary>The whole configuration</summary>\n\n```yaml\n{text}```\n\n</details>"


def _value(value: Any) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)


def _results(results: Sequence[Record]) -> Iterator[str]:
    if not results:
        yield (
            "Nothing was measured of exactly these weights. (`ddpm-ip table` and `ddpm-ip evaluate` do, before an "
            "export.)"
        )
        return
    lines = list(dict.fromkeys(record.line or "unknown" for record in results))
    yield "Of exactly these weights. Numbers of different protocols do not compare."
    head = [
        "| metric | value | sampler | steps | times | network evaluations | protocol |",
        "|---|---|---|---|---|---|---|",
    ]
    yield "\n".join([*head, *(_row(record, lines.index(record.line or "unknown") + 1) for record in results)])
    yield "\n".join(f"{i}. Protocol: {_text(line)}" for i, line in enumerate(lines, 1))
    for name in dict.fromkeys(record.metric for record in results):
        if found := find(name):
            yield f"**{_text(name)}**: {_text(found.what)} {_text(found.limits)}"


def _row(record: Record, protocol: int) -> str:
    spread = "" if record.spread is None else f" ± {record.spread:.3g}"
    cells = [record.metric, f"{record.value:.6g}{spread}", record.row, record.steps, record.spacing, record.evaluations]
    return f"| {' | '.join('' if cell is None else _text(cell) for cell in cells)} | {protocol} |"


def _limits(config: Config, facts: Facts) -> str:
    _, height, width = config.shape
    return (
        f"It makes images of {width} x {height} px, like those of its training set ({_text(config.data.name)}) and no "
        "others, with whatever bias that set has. How far it reproduces single training images was not examined. The "
        "licence of the weights says nothing of the rights in the training images."
        + ("" if facts.results else " Its quality was not measured.")
    )


def _licence(imported: Mapping[str, Any] | None) -> str | None:
    """Of imported weights, if it is known."""
    found = (imported or {}).get("licence")
    return found if isinstance(found, str) and found.strip() and found != "unknown" else None


def _text(value: object) -> str:
    """Anything for a line of Markdown, without its marks, links and HTML."""
    text = visible(str(value)[:LONGEST].replace("\u00a0", " ")).replace("\n", "\\n")
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)
