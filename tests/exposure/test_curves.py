"""How curves are told, and what each is said to be."""

from __future__ import annotations

from ddpm_ip.exposure.curves import KINDS, Curve, Exposure


def test_an_exposure_is_told_in_few_words() -> None:
    delta = Curve((-1.0, 10.5), (0.5, 0.25), (0.1, 0.1), (0.3, 0.05), (0.7, 0.45))
    one = Exposure("ddim<1>, 2 steps", "a" * 64, {}, 20, {"name": "digits"}, {"delta": delta, "nu": delta})
    assert one.as_text().splitlines()[1:] == ["   t  delta", "10.5   0.25", "  -1    0.5"]
    assert repr(one) == "<exposure of ddim<1>, 2 steps: 20 images, 2 curves>"
    assert "ddim&lt;1&gt;" in one._repr_html_()
    assert len(one._repr_html_()) < 200
    assert Exposure.from_dict(one.to_dict(), "a file").curves == one.curves
    assert all(kind.title and kind.meaning.endswith(".") for kind in KINDS.values())
