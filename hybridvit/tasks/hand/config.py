"""The keys that a recipe of hands has besides those of all tasks. Imports no torch."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hybridvit.errors import UsageError, nearest
from hybridvit.recipe.checks import at_least, positive, within
from hybridvit.recipe.groups import DataConfig, Source
from hybridvit.recipe.headed import HeadedRecipe

Assets = Literal["MANO", "generated"]
Joints = Literal["freihand", "chain"]

VERSIONS = ("gs", "hom", "sample", "auto")
"""What is behind a training hand of FreiHAND, in the order of its numbers: a green screen, or what replaces it."""

SOURCES = {
    "freihand": Source(
        meaning="FreiHAND, or other hands in its layout",
        opener="hybridvit.tasks.hand.data:open_freihand",
        needs_root=True,
        keys=("versions",),
    ),
    "rendered": Source(
        meaning="rendered hands in FreiHAND's layout, written to root first",
        opener="hybridvit.tasks.hand.data:open_rendered",
        keys=("versions",),
    ),
    "generated": Source(
        meaning="generated hands as dots, made in memory", opener="hybridvit.tasks.hand.generated:open_generated"
    ),
}
"""Where pictures of hands can come from.

An opener is given the recipe's `data` and the `DrawnAs` of training and of validation pictures, and gives these two as
`HandSamples`. It raises DatasetError or UsageError where they are not to be had.
"""
_SOURCES_HELP = "; ".join(f"{name}: {source.meaning}" for name, source in SOURCES.items()) + "."


@dataclass(frozen=True, kw_only=True)
class HandData(DataConfig):
    """Images: where they are, and how they are batched"""

    sources = SOURCES

    root: str = ""
    """Folder of the data set, in which training/ and training_K.json are."""
    train: str = "training"
    """The split to train on: the folder of its pictures, and how the names of its lists begin."""
    val: str = "evaluation"
    """The same of the split to validate on. Where it has no labels, 2 % of the training samples are held out."""
    val_share: float = 0.0
    """Share of the training samples to hold out and validate on, in place of those in val; 0 holds out none. They are
    the last ones, for neighbours are often of one sequence, with all their versions."""
    source: Literal[tuple(SOURCES)] = field(default="freihand", metadata={"help": _SOURCES_HELP})  # type: ignore[valid-type]

    versions: tuple[str, ...] = VERSIONS
    """For FreiHAND and rendered hands: the grounds to train on: gs, hom, sample, auto."""
    image_size: int = 224
    """Side of the square training and validation images, in pixels."""
    crop_fraction: float = 1.0
    """Part of the resized image that validation cuts out of its centre."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling filter of the resize; training is always bilinear."""
    total_batch: int = 256
    """Images per optimizer step over all devices; each device's share is derived from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [each for each in self.versions if each not in VERSIONS]:
            raise UsageError(
                f"Recipe key 'data.versions' has '{unknown[0]}', but FreiHAND has no such version. "
                f"{nearest(unknown[0], VERSIONS)}."
            )
        if not self.versions or len(set(self.versions)) < len(self.versions):
            raise UsageError(
                f"Recipe key 'data.versions' is {list(self.versions)}, but it must name at least one version, and each "
                "once, such as [gs, hom]."
            )


@dataclass(frozen=True, kw_only=True)
class HandAugmentConfig:
    """What training does to pictures; points and cameras follow exactly. The defaults are those of METRO's"""

    rotation_deg: float = 90.0
    """Standard deviation of the angle by which the picture is turned, in degrees; at most twice that is drawn."""
    rotation_share: float = 0.4
    """Share of the pictures that are turned."""
    scale: float = 0.25
    """Standard deviation of the side of the part that is shown, over that of the picture; at most that is drawn."""
    shift: float = 0.0
    """Most that the centre of the part is moved in each direction, over its side."""
    channel_gain: float = 0.4
    """Most that each channel is made brighter or darker, over its values."""

    def __post_init__(self) -> None:
        within("augment.rotation_deg", self.rotation_deg, 0.0, 180.0)
        within("augment.rotation_share", self.rotation_share, 0.0, 1.0)
        for name, most in (("scale", 0.9), ("shift", 0.5), ("channel_gain", 1.0)):
            within(f"augment.{name}", getattr(self, name), 0.0, most)


@dataclass(frozen=True, kw_only=True)
class HandMeshConfig:
    """Options of the head that moves a hand"""

    assets: Assets = "MANO"
    """Whose mesh is moved. MANO's is looked for where `hybridvit mano convert` writes it."""
    sha256: str = ""
    """Of the content of that mesh; empty: whichever is found. A checkpoint has that of the one it was trained with."""
    joints: Joints = "freihand"
    """Where keypoints are: freihand: regressed from the moved mesh; chain: where the joints turn, 1 to 3 mm away."""

    def __post_init__(self) -> None:
        if self.sha256 and not (len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef")):
            raise UsageError(f"sha256 is '{self.sha256[:80]}', but a digest is 64 hexadecimal digits. Leave it out.")


@dataclass(frozen=True, kw_only=True)
class HandConfig:
    """The hand whose mesh is learnt"""

    assets: str = ""
    """The file that `hybridvit mano convert` wrote, or generated for a made-up hand; empty: the file is looked for, and
    for generated pictures it is the generated hand."""


@dataclass(frozen=True, kw_only=True)
class HandLossConfig:
    """What training minimises"""

    kind: Literal["l1", "metro"] = "l1"
    """l1: mean distances along the axes of vertices, keypoints and their places in the picture; metro: as METRO has it,
    squares for keypoints and places, which is the likeliest reading of FastViT's paper."""
    vertices: float = 1.0
    """Weight of the vertices."""
    keypoints: float = 1.0
    """Weight of the keypoints in space."""
    points: float = 1.0
    """Weight of the keypoints in the picture, whose sides are 2 long."""
    rotations: float = 0.0
    """Weight of the squared differences of the joints' rotations, which training samples need parameters for."""
    root: int = 0
    """The keypoint from which vertices and keypoints are measured: 0 is the wrist, 9 the base of the middle finger."""
    unit_m: float = 0.1
    """The unit of lengths in space, in metres: with 0.1 the three terms of l1 are of one size. METRO's is 1."""

    def __post_init__(self) -> None:
        for name in ("vertices", "keypoints", "points", "rotations"):
            at_least(f"loss.{name}", getattr(self, name), 0.0, "0 leaves it out")
        if not self.vertices + self.keypoints > 0 or not self.points > 0:
            raise UsageError(
                "Recipe keys 'loss.vertices' and 'loss.keypoints', or 'loss.points', are 0, but without them either "
                "the hand or its place in the picture is not learnt. Give weights above 0."
            )
        within("loss.root", self.root, 0, 20)
        positive("loss.unit_m", self.unit_m)


@dataclass(frozen=True, kw_only=True)
class HandRecipe(HeadedRecipe):
    """The run"""

    data: HandData = field(default_factory=HandData)
    """Images"""
    augment: HandAugmentConfig = field(default_factory=HandAugmentConfig)
    """Augmentation"""
    hand: HandConfig = field(default_factory=HandConfig)
    """The hand"""
    loss: HandLossConfig = field(default_factory=HandLossConfig)
    """The loss"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "assets" in self.head_options:
            raise UsageError("Recipe key 'head_options' sets assets, which follows from hand.assets. Set that.")

    @property
    def assets(self) -> str:
        """The hand, as `find_assets` names it."""
        return self.hand.assets or ("generated" if self.data.source in ("generated", "rendered") else "")

    @property
    def creation(self) -> dict[str, Any]:
        whose = {"assets": "generated"} if self.assets == "generated" else {}
        made = super().creation
        return made | {"head_options": {**whose, **made["head_options"]}}

    def trial_settings(self) -> tuple[dict[str, Any], list[str]]:
        settings, changed = super().trial_settings()
        if self.assets == "generated":
            return settings, changed
        changed.append("left out: the hand's own mesh; a generated one takes its place")
        return settings | {"hand": replace(self.hand, assets="generated")}, changed
