"""How a stage of hierarchical attention is built, as a value. Importing it needs no torch."""

from dataclasses import dataclass
from typing import Literal

from hybridvit.errors import UsageError
from hybridvit.models.checks import check_choice, check_flag, check_integer, check_layer_scale

MAX_WINDOW = 128  # the largest published is 48
CarrierSource = Literal["map", "constant", "tokens"]
RelativeBiasKind = Literal["mlp", "table", "none"]
_CHOICES: dict[str, tuple[str, ...]] = {
    "carrier_source": ("map", "constant", "tokens"),
    "relative_bias": ("mlp", "table", "none"),
}


@dataclass(frozen=True, kw_only=True)
class HATConfig:
    """Hierarchical attention over one map; the defaults are those of FasterViT-0's third stage."""

    num_heads: int
    window_size: int = 7  # side of a window
    carrier_size: int = 2  # carrier tokens per window and side; 0: none, which leaves plain window attention
    mlp_ratio: int = 4
    layer_scale_init: float | None = None  # None: no layer scale
    propagate: bool = False  # add the carriers to the tokens of their windows at the end (equation 8)
    carrier_source: CarrierSource = "map"  # where carriers come from; "tokens": pooled and propagated in every block
    carrier_attention: bool = True  # between the carriers of all windows
    relative_bias: RelativeBiasKind = "mlp"  # SwinV2's log-spaced one for any window, or Swin's table for this one
    position_embedding: bool = True
    position_hidden: int = 512  # hidden features of the MLPs that compute biases and embeddings

    def __post_init__(self) -> None:
        for name in ("num_heads", "window_size", "mlp_ratio", "position_hidden"):
            check_integer(name, getattr(self, name), 1)
        check_integer("carrier_size", self.carrier_size, 0)
        check_layer_scale("layer_scale_init", self.layer_scale_init)
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("propagate", "carrier_attention", "position_embedding"):
            check_flag(name, getattr(self, name))
        if self.window_size > MAX_WINDOW:
            raise UsageError(
                f"window_size is {self.window_size}, but at most {MAX_WINDOW}: the bias between the tokens of a larger "
                "window takes gigabytes. Use a smaller window, with carriers for what is farther away."
            )
        check_carrier_size(self.carrier_size, self.window_size)


def check_carrier_size(carrier_size: int, window_size: int) -> None:
    """Refuse carriers that would not stay with their windows.

    Carriers are pooled over the whole map in steps of floor(window / carriers) pixels; where these steps do not add up
    to a window, a carrier far from the top left summarises another window than its own. The released models live with
    one pixel per window (2 in 7).

    Raises:
        UsageError: if the carriers of one side divide neither the window's side nor the side less one.
    """
    if carrier_size and (carrier_size > window_size or window_size % carrier_size > 1):
        fitting = [size for size in range(1, window_size + 1) if window_size % size <= 1]
        raise UsageError(
            f"carrier_size is {carrier_size} and the window {window_size}x{window_size}, but carriers per side must "
            f"divide the window's side, or the side less one. Use one of {', '.join(map(str, fitting))}, or 0 for none."
        )
