"""Values and names from outside: bounded in time and length, without code, and visible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_ip.config import from_dict, parse_overrides
from ddpm_ip.errors import ConfigError
from ddpm_ip.plain import QUOTED, SHOWN, load_yaml, parse_yaml, quoted, shown, visible, yaml_text

LONG = 2000  # characters that are more than a message of one mistake has
REFUSED = {
    "deep lists": ("[" * 100_000, "nested more than 100 levels"),
    "deep closed lists": ("[" * 100_000 + "]" * 100_000, "nested more than 100 levels"),
    "deep objects": ("{a: " * 100_000, "nested more than 100 levels"),
    "deep blocks": ("- " * 100_000, "nested more than 100 levels"),
    "deep keys": ("? " * 100_000, "nested more than 100 levels"),
    "a list in itself": ("a: &a [*a]", "nested more than 100 levels"),
    "an object in itself": ("a: &a {b: *a}", "nested more than 100 levels"),
    "code": ("a: !!python/object/apply:os.system [true]", "tags are not read"),
    "a name": ("!!python/name:os.system x: 1", "tags are not read"),
    "binary": ("a: !!binary aGk=", "tags are not read"),
    "omap": ("!!omap\n- a: b", "tags are not read"),
    "pairs": ("a: !!pairs [a: b]", "tags are not read"),
    "a set": ("a: !!set {b, c}", "tags are not read"),
    "a type that it is anyway": ("a: !!str b", "tags are not read"),
    "one's own tag": ("a: !mine b", "tags are not read"),
    "a tag of a megabyte": ("a: !" + "x" * 1_000_000 + " b", "tags are not read"),
    "a merge": ("a: &a {x: 1}\nb: {<<: *a}", "merge keys"),
    "merges that multiply": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)),
        "merge keys",
    ),
    "aliases that multiply": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "far more than is written",
    ),
    "a long text many times": (f"a: &a {'x' * 50_000}\nb: [{'*a, ' * 1000}]", "far more than is written"),
    "a list as a key": ("[a, b]: c", "a key must be a text"),
    "an object as a key": ("? {a: b}\n: c", "a key must be a text"),
    "a number as a key": ("1: c", "a key must be a text, and '1' is none"),
    "nothing as a key": ("a: {null: 1}", "a key must be a text"),
    "an alias as a key": ("a: &a b\n*a : c\nb: d", "is there twice"),
    "a key twice": ("a: 1\nb: 2\na: 3", "the key 'a' is there twice .*line 3"),
    "a key of a megabyte twice": (
        '? "' + "x" * 1_000_000 + '"\n: 1\n? "' + "x" * 1_000_000 + '"\n: 2',
        "is there twice",
    ),
    "NUL": ('a: "b\\0c"', "NUL"),
    "escape codes": ("a: \x1b[31m", "special characters are not allowed"),
    "two documents": ("a: 1\n---\nb: 2", "a single document"),
    "no such anchor": ("a: *b", "undefined alias"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_yaml_that_does_harm_is_refused_in_a_bounded_message(kind: str) -> None:
    text, words = REFUSED[kind]
    with pytest.raises(ConfigError, match=words) as caught:
        parse_yaml(text, "a.yaml")
    assert len(str(caught.value)) < LONG


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("base: &b [1, 2]\nc: *b\nd: *b", {"base": [1, 2], "c": [1, 2], "d": [1, 2]}),
        ("a: " + "9" * 100_000, {"a": float("inf")}),
        ("a: -" + "9" * 1000, {"a": float("-inf")}),
        ("a: 1_000", {"a": 1000}),
        (f"a: {10**299}", {"a": 10**299}),
        ("'1': a", {"1": "a"}),
        ("'<<': a", {"<<": "a"}),
        ("a: =", {"a": "="}),
        ("a: 2001-13-45", {"a": "2001-13-45"}),
        ("[" * 100 + "]" * 100, None),
    ],
)
def test_what_is_harmless_is_read(text: str, value: object) -> None:
    found = load_yaml(text)
    assert value is None or found == value


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=9,
)


@given(st.dictionaries(TEXTS, PLAIN, max_size=4))
def test_what_is_written_is_read_back(tree: dict[str, object]) -> None:
    assert load_yaml(yaml_text(tree)) == tree


@given(st.text(max_size=30))
def test_visible_texts_are_visible_and_short(text: str) -> None:
    assert visible(text).replace("\n", "").isprintable()
    assert visible(visible(text)) == visible(text)
    assert (visible(text) == text) == text.replace("\n", "").isprintable()
    assert shown(text).isprintable()
    assert quoted(text).isprintable()
    assert len(quoted(text * 100)) <= QUOTED
    assert len(shown(text * 100)) <= SHOWN + 3


def test_marks_of_direction_and_controls_are_escapes() -> None:
    for code in (
        *range(32),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        0x200E,
        0x200F,
        0x2028,
    ):
        if chr(code) != "\n":
            assert visible(f"a{chr(code)}b") == f"a\\u{code:04x}b"
    assert visible("Größe 日本 é\nb") == "Größe 日本 é\nb"
    assert visible("\U000e0001") == "\\udb40\\udc01"


def test_whatever_is_quoted_is_short() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ([["x" * 1000] * 1000] * 1000, 10**5000, {"a": {"b": {"c": [1] * 10**6}}}, b"x" * 10**6, deep):
        assert len(quoted(value)) <= QUOTED


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (["--" + "a." * 50_000 + "b", "1"], "unknown key"),
        (["--" + "x" * 100_000, "1"], "unknown key"),
        (["--data.name", "x" * 100_000], "unknown name"),
        (["--train", "x" * 100_000], "must be a section"),
        (["--train.n_steps", "1" + "0" * 200], "less than"),
        (["--train.n_steps", "1" + "0" * 5000], "finite"),
        (["--train.batch_size", str(2**31)], "less than"),
        (["--train.times", "[" + "[x], " * 10_000 + "]"], "must be a section"),
        (["x" * 100_000], "unexpected argument"),
    ],
)
def test_messages_about_a_configuration_are_short(words: list[str], kinds: str) -> None:
    with pytest.raises(ConfigError, match=kinds) as caught:
        from_dict({"data": {"name": "digits"}}, overrides=parse_overrides(words))
    assert len(str(caught.value)) < LONG


def test_of_many_mistakes_some_are_told_and_the_others_counted() -> None:
    with pytest.raises(ConfigError, match=r"k0: unknown key(?s:.*)\n  and 99960 more$"):
        from_dict({"data": {"name": "digits"}, **{f"k{i}": 1 for i in range(100_000)}})
