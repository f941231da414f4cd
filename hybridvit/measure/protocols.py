"""How the papers measured, by name: what is not given follows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridvit.errors import UsageError, nearest
from hybridvit.measure.options import BenchOptions


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Options of `bench`, and where they are from."""

    options: Mapping[str, Any]
    source: str


PROTOCOLS: dict[str, Protocol] = {
    "fastvit-gpu": Protocol(
        options={"batch": (8,), "device": "cuda", "runtimes": ("torch-compile",), "rounds": 100, "calls": 1},
        source="FastViT, supplement: batch 8, median of 100 runs after 100 that are not timed, TensorRT on an RTX "
        "2080Ti; here PyTorch's compiler unless --runtimes tensorrt is given, and one call before each timed one",
    ),
    "fastvit-dense": Protocol(
        options={"batch": (2,), "image_size": ((512, 512),), "returns": "pyramid"},
        source="FastViT, Tables 9 and 10: the backbone of a segmenter or detector, its four feature maps, at 512x512 "
        "pixels and batch 2",
    ),
    "fastervit-gpu": Protocol(
        options={
            "batch": (128,),
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
        options={"batch": (1,), "precisions": ("fp32",)},
        source="FastViT, supplement: batch 1, Core ML on an iPhone 12 Pro; here whatever runtime is named, on this "
        "device",
    ),
}


def given_of(options: BenchOptions) -> dict[str, Any]:
    """What is given of `options`, and of the rest what their protocol sets; by name.

    Raises UsageError for an unknown protocol, or for a given value that makes it another one.
    """
    given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
    name = options.protocol
    if name is None:
        return given
    if name not in PROTOCOLS:
        raise UsageError(f"There is no protocol '{name}'. {nearest(name, PROTOCOLS)}.")
    protocol = PROTOCOLS[name].options
    if "batch" in given and tuple(given["batch"]) != protocol["batch"]:
        raise UsageError(
            f"The protocol {name} has batch {protocol['batch'][0]}, but --batch {given['batch'][0]} is given. Leave "
            "one of them out."
        )
    return {**protocol, **given}
