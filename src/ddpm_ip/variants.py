"""A place in the configuration that holds one of several dataclasses, told apart by their ``name``."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class ByName:
    """Marks such a field for pydantic, as in ``perturbation: Annotated[NoPerturbation | InputPerturbation, ByName()]``.

    (pydantic's own discriminator refuses a union of one; a place for variants may begin with a single one. Nothing of
    pydantic is imported before it asks.)
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.tagged_union_schema(
            {variant_name(v): handler.generate_schema(v) for v in variants(source)}, discriminator="name"
        )


HOW_MANY = ("(one)", "(several)")  # pydantic's names of the two in its errors; no key is called so


@dataclass(frozen=True)
class OneOrSeveral:
    """Marks a number for pydantic in whose place a list of them may stand, and stays one.

    As in ``decay: Annotated[Fraction | tuple[Fraction, ...], OneOrSeveral()]``. A mistake is reported for the one that
    was meant: for the list if it is a list, else for the number.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        arms = map(handler.generate_schema, get_args(source))
        return core_schema.tagged_union_schema(dict(zip(HOW_MANY, arms, strict=True)), discriminator=how_many)


def how_many(value: Any) -> str:
    """Which arm of :class:`OneOrSeveral` a value is meant for."""
    return HOW_MANY[isinstance(value, (list, tuple))]


@dataclass(frozen=True)
class Read:
    """Marks a field for pydantic whose values may be written in other ways, too.

    Args:
        by: makes of what is given what the field holds; anything that it does not know stays as it is.
    """

    by: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.by, handler(source))


@dataclass(frozen=True)
class FilledIn:
    """Marks a field for pydantic that only the program fills in: a configuration leaves it out, or says null.

    Args:
        why: it cannot be given, for a person.
    """

    why: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._nothing)

    def _nothing(self, value: Any) -> None:
        if value is not None:
            raise ValueError(self.why)


def one_or_more(value: Any) -> Any:
    """A number as the tuple that holds it; anything else as it is."""
    return (value,) if type(value) in (int, float) else value


def word_or_more(value: Any) -> Any:
    """A word as the tuple that holds it; anything else as it is."""
    return (value,) if isinstance(value, str) else value


def variants(annotation: Any) -> list[type]:
    """The dataclasses that a field can hold, alone or in a tuple of any length; none for a plain value."""
    if get_origin(annotation) is Annotated:
        return variants(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [v for arm in get_args(annotation) for v in variants(arm)]
    return [annotation] if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) else []


def sections(cls: type) -> dict[str, list[type]]:
    """The fields of a dataclass that are sections themselves, and what each can be."""
    return {name: found for name, hint in get_type_hints(cls, include_extras=True).items() if (found := variants(hint))}


def variant_name(cls: type) -> str:
    """The value of ``name`` that means this dataclass."""
    return str(next(f.default for f in dataclasses.fields(cls) if f.name == "name"))


def has_name(of: Sequence[type]) -> bool:
    """Whether these dataclasses are told apart by ``name``, though there may be a single one so far."""
    return any(f.name == "name" for f in dataclasses.fields(of[0]))


def settle(settings: Any, **meant: bool) -> None:
    """Refuses what is no choice; settings that play no part become None, and None that do become their default.

    What acts the same is then equal, and labels leave None out. Called from ``__post_init__`` of a frozen dataclass,
    before anybody sees it.

    Args:
        settings: the dataclass.
        meant: of settings that may play no part, by name, whether they do with the others as they are.

    Raises:
        ValueError: a field that is a ``Literal`` has another value; says which there are.
    """
    for field in dataclasses.fields(settings):
        if not meant.get(field.name, True):
            object.__setattr__(settings, field.name, None)
        elif field.name in meant and getattr(settings, field.name) is None:
            object.__setattr__(settings, field.name, field.default)
    for name, hint in get_type_hints(type(settings)).items():
        known, value = _choices(hint), getattr(settings, name)
        if known and value not in known and value is not None:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [c for arm in get_args(hint) for c in _choices(arm)] if get_origin(hint) in (Union, types.UnionType) else []
