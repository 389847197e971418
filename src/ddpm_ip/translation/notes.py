"""What became of the keys of a configuration, for a person."""

from __future__ import annotations

from dataclasses import dataclass, field

from ddpm_ip.errors import ConfigError


@dataclass
class Notes:
    """What became of the keys, each list in words of both programs.

    Attributes:
        same: keys that are called the same here, without ``.params``.
        read: ``theirs value -> ours value``.
        applied: what holds there where nothing is said, and is said here.
        left_out: keys that change nothing here, by the reason.
        different: what is another thing here, whatever the configuration says.
        impossible: keys that change the method and cannot be done here, with the reason.
    """

    same: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Indented lines, one list after the other; bounded, since a file may have any number of keys."""
        left_out = [f"{', '.join(keys[:60])} ({why})" for why, keys in self.left_out.items()]
        named = {"the same here": self.same, "applied, as there": self.applied, "left out": left_out}
        lines = [*self.read[:60], *(f"{name}: {', '.join(each[:60])}" for name, each in named.items() if each)]
        lines += [f"different here: {text}" for text in self.different]
        return "\n".join("  " + line.replace("\n", "\\n") for line in lines)

    def refuse(self, origin: str) -> None:
        """Stops where something cannot be done here.

        Raises:
            ConfigError: naming every such key.
        """
        if self.impossible:
            raise ConfigError(
                f"{origin} asks for what cannot be done here:\n" + "\n".join(f"  {key}" for key in self.impossible[:40])
            )
