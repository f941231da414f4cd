"""What a name given to `hybridvit bench` stands for: one of our models, a file, or any model of timm."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import UsageError, nearest
from hybridvit.export.spec import Precision
from hybridvit.hub import hub_place, local_file
from hybridvit.models.registry import VARIANTS
from hybridvit.task import DEFAULT_TASK

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["ours", "weights", "exported", "timm"]
Form = Literal["training", "folded"]
ALL_MODELS = "`hybridvit list` shows ours, timm.list_models() timm's"
FORMS: tuple[Form, ...] = ("training", "folded")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to measure, as plain values that a child process can be given."""

    name: str  # as in the results: of timm's models with the tag, of a file its path
    kind: Kind
    family: str
    image_size: tuple[int, int]  # its own: height, width in pixels
    source: str  # the variant, the path of a file, or the name in timm
    task: str = DEFAULT_TASK  # what it answers; of models by name, which have no other head
    in_chans: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)  # of a model built by name
    runtimes: tuple[str, ...] = ()  # the only ones, if there are any; of an exported file its own
    precision: Precision = "fp32"  # the only one, where there are only some runtimes
    batch: int | None = None  # of an exported file, the only one; None: any
    sizes: tuple[tuple[int, int], ...] = ()  # of an exported file, the only ones; none: any
    range_px: tuple[int, int] | None = None  # of an exported file, the smallest and the largest side; None: any
    is_folded: bool = False  # a file that has no training form any more
    returns: Literal["", "pyramid"] = ""  # pyramid: the feature maps of its backbone instead of its answers
    trust_changed: bool = False  # open an exported file that was changed on purpose

    def takes(self, image_size: tuple[int, int]) -> bool:
        """Whether it can be given images of (height, width) pixels, as far as its file says."""
        if self.range_px is not None:
            smallest, largest = self.range_px
            return all(smallest <= side <= largest for side in image_size)
        return not self.sizes or image_size in self.sizes


def find_subject(name: str, *, trust_changed: bool = False) -> Subject:
    """What `name` stands for: ours come first, then files, then peers' aliases and timm's names.

    An ONNX file from elsewhere, without a card, is one too; `trust_changed` takes an exported one that was changed.

    Raises UsageError for an unknown name, with the nearest; CheckpointError for a file that cannot be read.
    """
    from hybridvit.peers import PEERS

    if name in VARIANTS:
        variant = VARIANTS[name]
        size = variant.preprocessing.image_size
        return Subject(name=name, kind="ours", family=variant.family, image_size=size, source=name)
    if hub_place(name) is not None or Path(name).exists() or (name.endswith(_endings()) and name not in PEERS):
        return _file(name, trust_changed)
    peer = PEERS.get(name)
    subject = _of_timm(peer.timm_name if peer else name)
    if subject is None:
        raise UsageError(
            f"'{name}' is neither a model of hybridvit or timm nor a file. "
            f"{nearest(name, _known_names(name), lead='Nearest models:', otherwise=ALL_MODELS)}."
        )
    if peer is None:
        return subject
    side = peer.accuracy.image_size_px if peer.accuracy else None
    return Subject(
        name=peer.name,
        kind="timm",
        family=peer.family,
        image_size=(side, side) if side else subject.image_size,
        source=subject.source,
        options=peer.options,
    )


def of_pyramid(subject: Subject) -> Subject:
    """The backbone of `subject`, which gives feature maps. Raises UsageError for an exported file without them."""
    if subject.kind != "exported":
        return replace(subject, returns="pyramid")
    if subject.returns != "pyramid":
        raise UsageError(f"{subject.name} gives no feature maps. Export it again with --returns pyramid.")
    return subject


def build(subject: Subject, form: Form, image_size: tuple[int, int]) -> "nn.Module":
    """The model in eval mode, with a card. Models by name have random weights, which do not change their time.

    Ours are folded for images of `image_size` (height, width) where positions depend on it, timm's as timm folds them.
    Of a subject that returns its pyramid it is a `Pyramid`.
    """
    if subject.kind == "timm":
        return _peer(subject, form, image_size)
    from hybridvit.build import build as build_ours
    from hybridvit.checkpoints import load
    from hybridvit.folding.fold import fold
    from hybridvit.models.backbone import Backbone
    from hybridvit.models.backbone_maps import FeaturePyramid
    from hybridvit.models.hat.fixed_size import depends_on_size
    from hybridvit.models.with_head import WithHead

    model: nn.Module
    model = load(subject.source) if subject.kind == "weights" else build_ours(subject.source, **subject.options).eval()
    if subject.returns == "pyramid":
        model = model.pyramid if isinstance(model, WithHead) else FeaturePyramid(cast(Backbone, model))
    if form == "training" or subject.is_folded:
        return model
    return fold(model, image_size=image_size if depends_on_size(model) else None)


def _peer(subject: Subject, form: Form, image_size: tuple[int, int]) -> "nn.Module":
    import timm
    from timm.utils import reparameterize_model

    if subject.returns == "pyramid":
        from hybridvit.models.timm_pyramid import TimmPyramid

        maps = TimmPyramid(subject.source, **subject.options).eval().requires_grad_(False)
        return reparameterize_model(maps) if form == "folded" else maps
    options = dict(subject.options)
    try:  # those whose positions are for one size have to be built for it
        model = timm.create_model(subject.source, img_size=image_size, **options)
    except TypeError:
        model = timm.create_model(subject.source, **options)
    model = model.eval().requires_grad_(False)
    if form == "folded":
        model = reparameterize_model(model)
    preprocessing = Preprocessing(image_size=image_size)
    card = ModelCard(architecture=subject.name, preprocessing=preprocessing, source="timm, random weights")
    model.card = cast(Any, card)  # as our exporters ask for one
    return model


def _endings() -> tuple[str, ...]:
    from hybridvit.checkpoints.sniff import WEIGHT_ENDINGS
    from hybridvit.export.targets import EXPORTERS

    return (*(exporter.suffix for exporter in EXPORTERS.values()), *WEIGHT_ENDINGS)


def _file(path: str, trust_changed: bool) -> Subject:
    from hybridvit.export.runners import ExportedRunner
    from hybridvit.export.seal import Trust
    from hybridvit.export.targets import load_runner
    from hybridvit.loading import is_exported, load
    from hybridvit.models.whole import WholeModel

    file = local_file(path)  # once: each process of a candidate opens it
    trust = Trust(changed=trust_changed, foreign=True)
    opened = load_runner(file, trust=trust) if is_exported(file) else load(file)
    card = opened.card
    size = card.preprocessing.image_size
    shared: dict[str, Any] = {"name": path, "source": str(file), "task": card.task, "image_size": size}
    variant = VARIANTS.get(card.architecture)
    family = variant.family if variant else ""
    if isinstance(opened, ExportedRunner):
        spec = opened.spec
        return Subject(
            **shared,
            kind="exported",
            family=family,
            in_chans=spec.channels,
            runtimes=(opened.runtime,),
            precision=spec.precision,
            batch=spec.batch,
            sizes=spec.sizes,
            range_px=spec.range_px,
            returns="pyramid" if spec.returns == "pyramid" else "",
            is_folded=True,
            trust_changed=trust_changed,
        )
    assert isinstance(opened, WholeModel)
    return Subject(**shared, kind="weights", family=family, in_chans=opened.in_chans, is_folded=card.form == "folded")


def _of_timm(name: str) -> Subject | None:
    import timm

    if not timm.is_model(name):
        return None
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that it has not
        return None
    architecture = name.partition(".")[0]
    tag = f".{cfg.tag}" if cfg is not None and cfg.tag else ""
    height, width = cfg.input_size[1:] if cfg is not None else (224, 224)
    full = architecture + tag
    return Subject(name=full, kind="timm", family=_family(architecture), image_size=(height, width), source=full)


def _family(architecture: str) -> str:
    """The file of timm that an architecture is in."""
    import timm

    return timm.model_entrypoint(architecture).__module__.rpartition(".")[2]


def _known_names(name: str) -> list[str]:
    """What a wrong name may have meant; of an architecture that timm has with other weights, those."""
    import timm

    from hybridvit.peers import PEERS

    of_timm = timm.list_models(pretrained=True)
    same = [each for each in of_timm if each.partition(".")[0] == name.partition(".")[0]]
    return same or list(dict.fromkeys([*VARIANTS, *PEERS, *of_timm]))
