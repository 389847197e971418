"""The page's inner HTML: two chains that can be wound back, and the curve of what just ran. No address leads outside.

A chain is one tall picture of all its frames behind a window, so that winding needs no network and no program but one
line in the slider itself.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ddpm_ip.images import UInt8, grid
from ddpm_ip.report.markup import Markup, escape, tag
from ddpm_ip.report.plots import make_figure, style_of
from ddpm_ip.report.svg import run_label, to_svg
from ddpm_ip.ui.scene import Frame, Side, difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1  # pixels between images
SIZE = (4.8, 2.6)  # of a figure, inches
MARKED = 60  # points of a line that have markers
WIND = (
    "const at = this.value / 100;"
    "this.closest('.scene').querySelectorAll('.chain').forEach(chain => {"
    "const times = chain.dataset.times.split(' '), i = Math.round(at * (times.length - 1));"
    "chain.style.setProperty('--frame', i);"
    "chain.querySelector('output').textContent = times[i] === '-1' ? 'finished' : 't = ' + times[i]; })"
)


def scene_html(sides: Sequence[Side]) -> str:
    """What is shown of sides that are under way, or finished."""
    finished = all(side.finished for side in sides)
    chains = tag("div.chains", [_chain(i, side, finished) for i, side in enumerate(sides)])
    if not finished:
        return tag("div.scene", chains, aria_busy="true")
    return tag("div.scene", _slider(), chains, _told(sides), tag("div.figures", _figures(sides)))


def waiting_html(text: str) -> str:
    """What is being done before there is anything to see."""
    return tag("div.scene", tag("p", text), aria_busy="true")


def error_html(text: str) -> str:
    """What is wrong, in words."""
    return tag("div.wrong", text, role="alert")


def _slider() -> Markup:
    slider = tag(
        "input", type="range", min=0, max=100, value=100, step="any", oninput=WIND, aria_label="along the chain"
    )
    return tag("label.wind", tag("span", "noise"), slider, tag("span", "image"))


def _chain(index: int, side: Side, finished: bool) -> Markup:
    """A side: while it runs its latest frame, in the end all of them."""
    name = tag("h3", run_label(index, _breaking(f"{'AB'[index]}: {side.label}")))
    if not side.frames:
        return tag("section.chain", name, tag("p", "comes next"))
    frames = side.frames if finished else side.frames[-1:]
    times = " ".join(f"{frame.t:g}" for frame in frames)
    done = "finished" if frames[-1].t == -1 else f"t = {frames[-1].t:g}"
    evaluations = f"{side.evaluations} network evaluations an image"
    return tag(
        "section.chain",
        name,
        tag("p", tag("output", done), f" · {evaluations}"),
        tag("div.films", _film("noisy images", frames, False), _film("predicted images", frames, True)),
        data_times=times,
        style=f"--frames: {len(frames)}; --frame: {len(frames) - 1}",
    )


def _breaking(label: str) -> Markup:
    """A label that may continue on the next line after each of its parts."""
    return Markup(re.sub("([+,])", r"\1<wbr>", escape(label)))


def _film(title: str, frames: Sequence[Frame], predicted: bool) -> Markup:
    pictures = [_grid(_shown(frame, predicted)) for frame in frames]
    width, height = pictures[0].size
    film = Image.new(pictures[0].mode, (width, height * len(pictures)))
    for i, picture in enumerate(pictures):
        film.paste(picture, (0, i * height))
    image = tag("img", src=_data(film), alt=title)
    window = tag("div.window", image, style=f"aspect-ratio: {width} / {height}")
    return tag("figure", window, tag("figcaption", title))


def _shown(frame: Frame, predicted: bool) -> UInt8:
    if not predicted:
        return frame.xt
    return np.full_like(frame.xt, 235) if frame.x0 is None else frame.x0


def _grid(images: UInt8) -> Image.Image:
    return grid(images, columns=math.ceil(math.sqrt(len(images))), gap=GAP, scale=1)


def _data(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _told(sides: Sequence[Side]) -> Markup | None:
    if len(sides) < 2:
        return None
    far = difference(sides)
    same = "The finished images of A and B are the same."
    text = (
        f"Both began with the same noise. Their finished images differ by {far:.3g} of 255 levels (root mean square)."
    )
    return tag("p.told", text if far else same)


def _figures(sides: Sequence[Side]) -> list[Markup]:
    """The norms over t, and where both sides asked at the same times, also their ratio, which shows what is small."""
    told = "mean norm of the predicted noise, by t"
    found = [_figure(told, to_svg(norms_figure(sides), "norms", told))]
    if len(sides) > 1 and sides[0].times == sides[1].times:
        told = "the norm of B divided by that of A"
        found.append(_figure(told, to_svg(ratio_figure(sides), "ratio", told)))
    return found


def _figure(title: str, svg: Markup) -> Markup:
    return tag("figure", tag("figcaption", title), svg)


def norms_figure(sides: Sequence[Side]) -> Figure:
    """The mean norm of the predicted noise over t, a line for each side; the chain runs from left to right.

    Raises:
        UserError: matplotlib is missing.
    """
    figure, axes = make_figure(*SIZE)
    for i, side in enumerate(sides):
        _draw(axes, i, side.times, side.norms)
    return figure


def ratio_figure(sides: Sequence[Side]) -> Figure:
    """The norms of the second side divided by those of the first, over the same times."""
    figure, axes = make_figure(*SIZE)
    axes.axhline(1.0, color=style_of(0)[0], linewidth=1.4)
    ratios = [b / a if a else math.nan for a, b in zip(sides[0].norms, sides[1].norms, strict=True)]
    _draw(axes, 1, sides[1].times, ratios)
    axes.ticklabel_format(axis="y", useOffset=False)
    return figure


def _draw(axes: Axes, index: int, times: Sequence[float], values: Sequence[float]) -> None:
    color, marker = style_of(index)
    line = "dashed" if index else "solid"
    axes.plot(times, values, color=color, linewidth=1.4, linestyle=line, marker=marker if len(times) <= MARKED else "")
    axes.lines[-1].set_markersize(3.6)
    axes.set_xlim(max(times) + 1, min(times) - 1)
    axes.set_xlabel("t")
