"""The page's inner HTML: whole films, escaped texts, curves with the right numbers, and nothing from elsewhere."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.ui.scene import Frame, Side
from ddpm_ip.ui.view import error_html, norms_figure, ratio_figure, scene_html, waiting_html


def frame(t, level, n=4, channels=1):
    images = np.full((n, channels, 6, 8), level, dtype=np.uint8)
    return Frame(t, images, None if t == 9 else images // 2)


def side(label="ddim, 2 steps", factor=1.0, times=(9.0, 4.0), finished=True, channels=1):
    frames = [frame(t, 20 * i, channels=channels) for i, t in enumerate((9, 4, -1))]
    norms = [8.0, 6.0 * factor]
    return Side(label, 2, list(times), norms, frames if finished else frames[:2], finished)


def pictures(html):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_film_has_all_frames(channels):
    """Of each side the noisy and the predicted images, frame below frame."""
    html = scene_html([side(channels=channels), side(channels=channels)])
    films = pictures(html)
    assert len(films) == 4
    assert {film.size for film in films} == {(2 * 8 + 3, 3 * (2 * 6 + 3))}
    assert html.count('data-times="9 4 -1"') == html.count("--frames: 3; --frame: 2") == 2
    if channels == 1:
        noisy, predicted = (np.asarray(film) for film in films[:2])
        assert [noisy[15 * i + 3, 3] for i in range(3)] == [0, 20, 40]
        assert [predicted[15 * i + 3, 3] for i in range(3)] == [235, 10, 20], "nothing is predicted at the start"


def test_while_it_runs_the_latest_frame_is_shown_alone():
    running = scene_html([side(finished=False), Side("b", 2)])
    assert 'aria-busy="true"' in running
    assert [film.size for film in pictures(running)] == [(19, 15)] * 2
    assert "B: b" in running
    assert "comes next" in running
    assert "t = 4" in running
    assert "<input" not in running
    assert "<svg" in running  # the swatch
    assert 'class="plot"' not in running


def test_finished_there_is_a_slider_a_sentence_and_the_curves():
    html = scene_html([side(), side(factor=1.1)])
    assert html.count("<input") == 1
    assert "finished images of A and B are the same" in html
    assert html.count('class="plot"') == 2
    other = side(times=(8.0, 3.0))
    other.frames[-1].xt[:] += 10
    html = scene_html([side(), other])
    assert "differ by 10 of 255 levels" in html
    assert html.count('class="plot"') == 1, "no ratio at different times"


def test_the_lines_are_the_numbers():
    sides = [side(), side(factor=1.5)]
    lines = norms_figure(sides).axes[0].lines
    assert [line.get_xydata().tolist() for line in lines] == [[[9, 8], [4, 6]], [[9, 8], [4, 9]]]
    ratio = ratio_figure(sides).axes[0].lines[-1]
    assert ratio.get_xydata().tolist() == [[9, 1], [4, 1.5]]
    low, high = norms_figure(sides).axes[0].get_xlim()
    assert low > high, "the chain runs from left to right"


def test_nothing_comes_from_elsewhere_and_texts_are_texts():
    html = scene_html([side("<b>,x=1+\u202ey"), side()]) + error_html("<script>\nno") + waiting_html("<i>")
    assert "http" not in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert "<script>" not in html
    assert "&lt;b&gt;,<wbr>x=1+<wbr>\ufffdy" in html
    assert "&lt;script&gt;\nno" in html
