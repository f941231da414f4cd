"""What models are judged by, as numbers with a unit and a direction. Importing it needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number that models are judged by, as tables, curves and messages show it."""

    name: str  # in metrics.csv and JSON
    title: str
    unit: str = "%"
    higher_is_better: bool = True
    decimals: int = 2
    note: str = ""  # how it is computed, if that needs saying

    @property
    def heading(self) -> str:
        """The title as a line begins with it."""
        return self.title[:1].upper() + self.title[1:]

    def text(self, value: float) -> str:
        """The value with its unit."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def number(self, value: float) -> str:
        """The value alone."""
        return f"{value:.{self.decimals}f}"

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`; equals are not."""
        return one > other if self.higher_is_better else one < other

    def lost(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`; below zero if it is better."""
        return before - after if self.higher_is_better else after - before

    @property
    def unit_of_losses(self) -> str:
        """What a difference is counted in."""
        return "points" if self.unit == "%" else self.unit
