"""A picture that was drawn before is not drawn again: the pages of these tests show the same few over and over."""

import hashlib
import io
import pickle
from types import FunctionType
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import TransformNode


class Content(pickle.Pickler):
    """Pickles a figure so that two of the same content give the same bytes."""

    def reducer_override(self, it: Any) -> Any:
        if isinstance(it, FunctionType) and "<" in it.__qualname__:  # one within another: what it does, and with what
            around = tuple(cell.cell_contents for cell in it.__closure__ or ())
            return tuple, ((it.__module__, it.__qualname__, it.__code__.co_code, it.__defaults__, around),)
        if isinstance(it, TransformNode):  # its parents are called by their addresses, and change no picture
            made, given, state, *_ = it.__reduce_ex__(4)
            return made, given, {key: value for key, value in state.items() if key != "_parents"}
        return NotImplemented


draw = Figure.savefig


def remember_pictures(patch: pytest.MonkeyPatch) -> None:
    """Lets ``Figure.savefig`` write what it wrote for a figure of the same content, settings and options."""
    drawn: dict[bytes, Any] = {}

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        if not isinstance(file, (io.StringIO, io.BytesIO)):
            return draw(figure, file, **options)
        content = io.BytesIO()
        Content(content, 4).dump((figure, options, dict(matplotlib.rcParams)))
        key = hashlib.sha256(content.getbuffer()).digest()
        if key not in drawn:
            buffer = type(file)()
            draw(figure, buffer, **options)
            drawn[key] = buffer.getvalue()
        file.write(drawn[key])
        return None

    patch.setattr(Figure, "savefig", savefig)
