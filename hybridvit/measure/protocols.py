"""How the papers measured, by name: what is not given follows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridvit.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Options of `bench`, and where they are from."""

    options: Mapping[str, Any]
    source: str


PROTOCOLS: dict[str, Protocol] = {
    "fastvit-gpu": Protocol(
        options={"batches": (8,), "device": "cuda", "runtimes": ("torch-compile",), "rounds": 100, "calls": 1},
        source="FastViT, supplement: batch 8, median of 100 runs after 100 that are not timed, TensorRT on an RTX "
        "2080Ti; here PyTorch's compiler unless --runtimes tensorrt is given, and one call before each timed one",
    ),
    "fastervit-gpu": Protocol(
        options={
            "batches": (128,),
            "device": "cuda",
            "runtimes": ("torch",),
            "precisions": ("fp16",),
            "rounds": 50,
            "calls": 1,
        },
        source="FasterViT, Table 1: images per second at batch 128 on an A100; the precision is not stated, here it is "
        "fp16 with channels last",
    ),
    "phone": Protocol(
        options={"batches": (1,), "precisions": ("fp32",)},
        source="FastViT, supplement: batch 1, Core ML on an iPhone 12 Pro; here whatever runtime is named, on this "
        "device",
    ),
}


def options_of(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `bench`: those of the protocol, and `given` before them.

    Raises UsageError for an unknown protocol, or for a given value that makes it another one.
    """
    if name is None:
        return dict(given)
    if name not in PROTOCOLS:
        raise UsageError(f"There is no protocol '{name}'. Nearest: {nearest(name, PROTOCOLS)}.")
    protocol = PROTOCOLS[name]
    if "batches" in given and tuple(given["batches"]) != protocol.options["batches"]:
        raise UsageError(
            f"The protocol {name} has batch {protocol.options['batches'][0]}, but --batch {given['batches'][0]} is "
            "given. Leave one of them out."
        )
    return {**protocol.options, **given, "protocol": name}
