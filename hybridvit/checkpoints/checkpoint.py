"""Save models, load them again, and move weights between our names and those of Apple, NVIDIA and timm."""

import io
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from hybridvit.atomic import replacing
from hybridvit.card import Form, ModelCard
from hybridvit.checkpoints.files import WeightFile, read_tensors
from hybridvit.checkpoints.keymaps import KEY_MAPS, Naming, form_of, from_ours, naming_of, start_of, to_ours
from hybridvit.checkpoints.matching import (
    FIRST_CONVS,
    ONE_MODEL,
    OTHER_VERSION,
    best_match,
    check_names,
    class_names_of,
    has_unsaved_constants,
    options_of,
    shapes_of,
    skeleton,
)
from hybridvit.checkpoints.metadata import card_of, to_metadata
from hybridvit.checkpoints.names import named
from hybridvit.errors import CheckpointError, MissingPart, UsageError
from hybridvit.folding.fold import unwrapped
from hybridvit.models.raw_pixels import RawPixelConv
from hybridvit.models.registry import VARIANTS, find_variant
from hybridvit.models.whole import WholeModel

FilePath = str | os.PathLike[str]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What `load_weights` did."""

    source: str
    naming: Naming
    weight_set: str  # the entry of the file that was read, such as "state_dict_ema"; empty if it is flat
    num_tensors: int  # that were copied into the model
    card: ModelCard | None  # the card in the file, if it is a checkpoint of ours
    reset: tuple[str, ...] = ()  # names of tensors left as initialised
    adapted: tuple[str, ...] = ()  # names of tensors fitted to the model's input channels
    started: tuple[str, ...] = ()  # names of tensors that the file, a start of such a model, lacks
    prefix: str = ""  # that was taken off the file's names, such as "model."
    left_out: tuple[str, ...] = ()  # names of what else the file holds


def save_checkpoint(model: nn.Module, path: FilePath) -> None:
    """Write a model of this library, in any form, as safetensors with its card; `load` gives it back bit-equal.

    The file appears whole or not at all. Raises UsageError for something that is no such model, for another extension
    than .safetensors or a missing folder, CheckpointError for weights that are not finite, DiskFull if the device
    refuses.
    """
    whole, path = _whole(model), Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path} ends in '{path.suffix}', but checkpoints are safetensors: name it {path.stem}.safetensors. For "
            "other libraries, save_upstream writes Apple's, NVIDIA's and timm's files."
        )
    if any(isinstance(module, RawPixelConv) for module in whole.modules()):
        raise UsageError(
            "The normalisation is folded into this model's first convolution, which a card cannot describe. Save the "
            "model that was passed to fold_preprocessing, and call fold_preprocessing again after load."
        )
    tensors = _tensors_of(whole)
    card = whole.present_card
    try:
        rebuilt = shapes_of(skeleton(card).state_dict())
    except ValueError as error:
        raise UsageError(f"The model cannot be built again from its card, so it cannot be saved: {error}") from error
    if rebuilt != shapes_of(tensors):
        raise UsageError(
            f"The model is not the {card.form} form of {card.architecture} that its card describes: layers were "
            "replaced, added or removed. Save its state_dict() with your own code, and the code that builds it."
        )
    _write(path, to_safetensors(tensors, to_metadata(card, tensors)))


def load(path: FilePath, *, architecture: str | None = None) -> WholeModel:
    """The model in the file at `path`, in eval mode, in the form (training, released, folded) it was saved in.

    Takes checkpoints of ours, which say what they are, Apple's and timm's FastViT weights and NVIDIA's FasterViT
    weights, whose architecture is found from their names and shapes; `architecture` demands one. The weights of
    fastervit_4_21k_{224,384,512,768} look alike: without `architecture` it is the one that the file's name names, as
    NVIDIA's do, else fastervit_4_21k_224. Raises CheckpointError for anything wrong with the file, UsageError for an
    unknown architecture.
    """
    file = read_tensors(path)
    card, tensors = card_of(file), file.tensors
    fix = OTHER_VERSION if card else ONE_MODEL  # a card is of these very tensors
    if card is None:
        naming = naming_of(tensors, file.path)
        if start_of(naming):
            raise CheckpointError(
                f"{file.path} holds {KEY_MAPS[naming].title}, which is no whole model of this library but a start of "
                "one. Create the model with it: create_model('swin_tiny_hat', pretrained=...)."
            )
        tensors = to_ours(tensors, naming, file.path)
        card = _found_card(file, tensors, naming, architecture)
        tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    elif architecture not in (None, card.architecture):
        find_variant(str(architecture))  # refuses an unknown one
        raise CheckpointError(f"{file.path} holds {card.architecture}, you asked for {architecture}.")
    else:  # what `push` writes may be in timm's names
        tensors = to_ours(tensors, naming_of(tensors, file.path), file.path)
    model = _built_for(file, card, tensors)
    expected = model.state_dict()
    check_names(str(file.path), tensors, expected, card.architecture, card.form, fix=fix)
    copies = {  # the file may be memory-mapped, and folded layers need a memory layout of their own
        name: torch.empty_like(expected[name], device="cpu", dtype=tensor.dtype).copy_(tensor)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(copies, strict=True, assign=True)
    if card.licence_notice:
        log.warning("%s: %s", file.path, card.licence_notice)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    return model.eval()


def load_weights(
    model: nn.Module,
    source: FilePath | Mapping[str, Tensor],
    *,
    reset_head: bool = False,
    adapt_input: bool = False,
) -> LoadReport:
    """Copy weights, in our, Apple's, NVIDIA's or timm's names, into a model of the same architecture and form. Strict.

    Args:
        model: a model of this library; unchanged unless everything fits.
        source: a file, or tensors by name.
        reset_head: leave the classifier as initialised, whatever the file has there.
        adapt_input: fit the first convolutions to the model's input channels: one channel gets the sum over the
            file's, more get them repeated and scaled to keep the sum.

    Raises CheckpointError for anything wrong with the file and for one that does not fit; the message lists the
    differing names, and the architecture that does fit.
    """
    whole = _whole(model)
    file = _of_tensors(source) if isinstance(source, Mapping) else read_tensors(source)
    card, naming = card_of(file), naming_of(file.tensors, file.path)
    tensors = to_ours(file.tensors, naming, file.path)
    expected = whole.state_dict()
    started = KEY_MAPS[naming].missing(tensors, expected) if start_of(naming) else {}
    tensors |= started
    _check_form(file, card.form if card else form_of(tensors), whole.card.form, whole.card.architecture)
    reset = tuple(name for name in whole.classifier if reset_head and name in expected)
    if reset_head:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in whole.classifier}
        tensors |= {name: expected[name] for name in reset}
    adapted = _differing_inputs(tensors, expected) if adapt_input else ()
    tensors |= {name: _with_channels(tensors[name], expected[name].shape[1]) for name in adapted}
    _check_options(file, tensors, expected, whole.classifier)
    check_names(str(file.path), tensors, expected, whole.card.architecture, whole.card.form)
    whole.load_state_dict(tensors, strict=True)
    return LoadReport(
        source=str(file.path),
        naming=naming,
        weight_set=file.weight_set,
        num_tensors=len(tensors) - len(reset) - len(started),
        card=card,
        reset=reset,
        adapted=adapted,
        started=tuple(started),
        prefix=file.prefix,
        left_out=file.left_out,
    )


def _of_tensors(tensors: Mapping[str, Tensor]) -> WeightFile:
    found, path = named(tensors), Path("The tensors")
    return WeightFile(path, found.tensors, prefix=found.prefix, left_out=found.left_out)


def save_upstream(model: nn.Module, path: FilePath, naming: Naming) -> None:
    """Write the weights under the names of "apple", "timm" or "nvidia", bit-equal.

    The extension decides the format: .safetensors, or .pt, .pth and .pth.tar for a pickle with `state_dict`. Names of
    Apple and timm are for FastViT, in training form and in the form of fold(model, released=True); NVIDIA's are for
    FasterViT in training form, and for the released architectures only. Raises UsageError for other extensions and
    names, CheckpointError for a model without such names.
    """
    path = Path(path).expanduser()
    whole = [name for name, key_map in KEY_MAPS.items() if not key_map.start]
    if naming not in whole:
        raise UsageError(f"naming is '{naming}', but must be one of {', '.join(map(repr, whole))}.")
    tensors = from_ours(_tensors_of(_whole(model)), naming)
    if path.suffix == ".safetensors":
        _write(path, to_safetensors(_unshared(tensors)))
    elif path.name.endswith((".pt", ".pth", ".pth.tar")):
        buffer = io.BytesIO()  # `_write` writes it: torch reports a full disk as an error of its own
        torch.save({"state_dict": tensors}, buffer)
        _write(path, buffer.getvalue())
    else:
        raise UsageError(f"{path} must end in .safetensors, .pt, .pth or .pth.tar, which decides the format.")


def _whole(model: nn.Module) -> WholeModel:
    model = unwrapped(model)
    if not isinstance(model, WholeModel):
        raise UsageError(
            f"A {type(model).__name__} is not a whole model of this library, so it has no card to build it from again. "
            "Pass what create_model(name) returned (features_only models: create the whole model and save that)."
        )
    return model


def _tensors_of(model: WholeModel) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, checked to be finite: a file that could not be loaded is not written."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"'{name}' has NaN or infinite values, so the model was not saved: its run diverged.")
    return tensors


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each name with memory of its own, as safetensors demands; NVIDIA lists one tensor twice."""
    first = {id(tensor): name for name, tensor in reversed(tensors.items())}
    return {name: tensor if first[id(tensor)] == name else tensor.clone() for name, tensor in tensors.items()}


def _write(path: Path, content: bytes) -> None:
    with replacing(path.resolve()) as temporary:  # a symbolic link stays one
        temporary.write_bytes(content)


def _found_card(file: WeightFile, tensors: dict[str, Tensor], naming: Naming, architecture: str | None) -> ModelCard:
    form = form_of(tensors)
    best, score = best_match(tensors, form, file.path.name)
    if architecture is None and score < len(tensors) / 2:
        raise CheckpointError(
            f"{file.path} fits no model of this library: the nearest, {best}, shares {score} of its {len(tensors)} "
            "keys. If it was trained with other options, create that model and use load_weights."
        )
    variant = find_variant(architecture or best)
    defaults = {"num_classes": variant.num_outputs, "in_chans": 3}
    weights = variant.published.weights_of(file.path.name, file.prefix)
    return ModelCard(
        architecture=variant.name,
        options={name: value for name, value in options_of(tensors).items() if value != defaults[name]},
        preprocessing=variant.prepared_for(weights),
        class_names=class_names_of(tensors, naming),
        form=form,
        source=f"{file.path.name} ({naming} names)",
        licence=weights.licence if weights else "",
    )


def _built_for(file: WeightFile, card: ModelCard, tensors: Mapping[str, Tensor]) -> WholeModel:
    depths = card.options.get("depths", ())
    if isinstance(depths, tuple) and sum(value for value in depths if isinstance(value, int)) > len(tensors):
        raise CheckpointError(f"{file.path}: its card asks for {depths} blocks, more than it has tensors. Refused.")
    try:
        model = skeleton(card)
        # timm's models compute some constants when they are made, and write them into no file
        return skeleton(card, device="cpu") if has_unsaved_constants(model) else model
    except MissingPart as error:
        raise MissingPart(f"{file.path}: {error}") from error
    except Exception as error:  # a hostile card may hold any value for any option, and so raise any error
        raise CheckpointError(
            f"{file.path}: this release cannot build the '{card.architecture}' that its card describes ({error})."
        ) from error


def _training_weights(architecture: str) -> str:
    """Which published weights can be trained further, as a sentence; empty where there are none."""
    variant = VARIANTS.get(architecture)
    tags = [tag for tag, weights in variant.published.weights if not weights.prefixes] if variant else []
    return f" To train {architecture}, begin with pretrained='{tags[0]}', which is in training form." if tags else ""


def _check_form(file: WeightFile, found: Form, expected: Form, architecture: str) -> None:
    if found == expected:
        return
    if expected == "training":
        raise CheckpointError(
            f"{file.path}: the checkpoint is folded (inference form); it cannot be unfolded, since the branches of its "
            "layers are summed in it. Create with folded=True, or use hybridvit.load(path), which "
            f"gives the folded model.{_training_weights(architecture)}"
        )
    raise CheckpointError(
        f"{file.path}: the checkpoint is in {found} form and the model in {expected} form. Load it into the model it "
        "was saved from, with hybridvit.load(path), and fold that with hybridvit.fold(model)."
    )


def _differing_inputs(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[str, ...]:
    shared = [name for name in FIRST_CONVS if name in tensors and name in expected]
    images = [name for name in shared if tensors[name].ndim == 4 and tensors[name].numel()]
    return tuple(name for name in images if tensors[name].shape[1] != expected[name].shape[1])


def _with_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for another number of input channels, with the same answer to a grey image."""
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, math.ceil(channels / given), 1, 1)[:, :channels] * (given / channels)


def _check_options(
    file: WeightFile, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], classifier: tuple[str, ...]
) -> None:
    """Name the option when nothing but the classifier or the input channels differ."""
    inputs, have, want = _differing_inputs(tensors, expected), shapes_of(tensors), shapes_of(expected)
    differing = {name for name in {*have, *want} if have.get(name) != want.get(name)}
    if inputs and differing <= {*inputs, *classifier}:
        raise CheckpointError(
            f"{file.path} takes {have[inputs[0]][1]} input channels, the model {want[inputs[0]][1]}. Pass "
            "adapt_input=True to fit the first convolution, or create the model with the same in_chans."
        )
    if differing and differing <= set(classifier):
        counts = [next(iter(each.get(classifier[0], ())), 0) for each in (have, want)]
        raise CheckpointError(
            f"{file.path} has {counts[0]} classes, the model {counts[1]}. Pass reset_head=True to keep all but the "
            f"classifier, or create the model with num_classes={counts[0]}."
        )
