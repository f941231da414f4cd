"""Classification by texts (Radford et al., 2021): a stored matrix of text embeddings as the head of an image tower."""

import copy
import dataclasses
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from hybridvit.card import ModelCard
from hybridvit.errors import UsageError, one_line, some
from hybridvit.models.backbone import Backbone

EPS = 1e-12  # of a length, so that no embedding is divided by zero
DEFAULT_SCALE = 100.0  # where the file has no `logit_scale`: what CLIP's training ends at

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextMatrix:
    """What a text tower made of the names of classes."""

    embeddings: Float[Tensor, "classes d"]  # each of length 1
    class_names: tuple[str, ...]
    logit_scale: float = DEFAULT_SCALE
    weights: str = ""  # whose text tower it is from; empty if the file does not say
    embedding_space: str = ""  # `ModelCard.embedding_space` of the image tower that it is for; empty if not said

    def check_fits(self, card: ModelCard, width: int, space: str = "") -> None:
        """Warn of a tower with other weights than those that the matrix names.

        `width` is that of the tower's embeddings, `space` its space of embeddings where the card does not say. Raises
        UsageError for another width, and for another space.
        """
        own = self.embeddings.shape[1]
        if width != own:
            raise UsageError(
                f"The text embeddings have {own} numbers each, but {card.architecture} gives {width}. Use the text "
                "tower that was trained with these weights."
            )
        space = space or card.embedding_space
        if self.embedding_space and space and self.embedding_space != space:
            raise UsageError(
                f"The text embeddings are for an image tower of the space {self.embedding_space[:12]}..., but these "
                f"weights of {card.architecture} have the space {space[:12]}...: their cosines mean nothing. Use the "
                "tower that they were written for, or write them again."
            )
        if self.weights and self.weights not in card.source:
            log.warning(
                "The text embeddings are of '%s', the model's weights of '%s': embeddings of different weights are not "
                "comparable",
                self.weights,
                card.source,
            )


def normalised(embeddings: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Each of length 1, in float32 also in a graph of 16 bits, and in operators that every runtime has."""
    embeddings = embeddings.float()
    return embeddings / embeddings.square().sum(-1, keepdim=True).sqrt().clamp_min(EPS)


def read_text_matrix(path: str | Path) -> TextMatrix:
    """The matrix in a safetensors file.

    `text_embeddings` is (classes, d), or (classes, templates, d), which is averaged; rows of any length are
    normalised. `logit_scale`, a number, is what cosines are multiplied by. The metadata have `class_names`, a JSON list
    in the order of the rows, and may have `weights` and `embedding_space`, the tower that they are for.

    Raises UsageError for anything else: rows of zeros or of what is no number, names that are missing, repeated or too
    many.
    """
    path = Path(path).expanduser()
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:  # whatever the format's own reader raises for a hostile file
        raise UsageError(
            f"{path} cannot be read as safetensors ({type(error).__name__}: {one_line(error)}). Write it with "
            "safetensors.torch.save_file({'text_embeddings': ...}, path, metadata={'class_names': json.dumps(names)})."
        ) from error
    if "text_embeddings" not in tensors:
        raise UsageError(f"{path} has no tensor 'text_embeddings' but {some(list(tensors), quoted=True) or 'none'}.")
    rows = tensors["text_embeddings"]
    if rows.ndim not in (2, 3) or not rows.is_floating_point() or 0 in rows.shape:
        raise UsageError(
            f"{path}: 'text_embeddings' is {rows.dtype} of shape {tuple(rows.shape)}, but must be floats (classes, d) "
            "or (classes, templates, d)."
        )
    embeddings = _averaged(path, rows.double() if rows.ndim == 3 else rows.double()[:, None])
    return TextMatrix(
        embeddings=embeddings,
        class_names=_class_names(path, metadata, len(rows)),
        logit_scale=_scale(path, tensors.get("logit_scale")),
        weights=metadata.get("weights", ""),
        embedding_space=metadata.get("embedding_space", ""),
    )


def with_text_matrix(model: Backbone, matrix: TextMatrix) -> Backbone:
    """A copy of an image tower that answers with the classes of `matrix`: an ordinary classifier with class names.

    Its logits are the cosines of an image's embedding with the texts' times the scale. Projection and matrix stay
    apart, since the length between them is the embedding's own.

    Raises:
        UsageError: for a model without a projection, and for one that the matrix does not fit.
    """
    projection = model.get_classifier()
    if not isinstance(projection, nn.Linear):
        raise UsageError(
            f"This {model.card.architecture} has no projection into the space of texts, so no text can be compared "
            "with its answers. Load weights that have one: those inside a language model do not."
        )
    matrix.check_fits(model.card, projection.out_features, model.embedding_space() if matrix.embedding_space else "")
    made = copy.deepcopy(model)
    made.head.fc = TextClassifier(projection, matrix)
    made.num_classes = len(matrix.class_names)
    made.card = dataclasses.replace(
        made.card,
        options={**made.card.options, "num_classes": made.num_classes},
        class_names=matrix.class_names,
    )
    return made.train(model.training)


class TextClassifier(nn.Module):
    """Projection, length 1, cosines with the texts times the scale."""

    def __init__(self, projection: nn.Linear, matrix: TextMatrix) -> None:
        super().__init__()
        self.projection = copy.deepcopy(projection)
        weight = (matrix.logit_scale * matrix.embeddings).to(projection.weight)
        self.texts = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
        self.texts.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Float[Tensor, "b f"]) -> Float[Tensor, "b classes"]:
        return self.texts(normalised(self.projection(x)).to(self.texts.weight.dtype))


def _averaged(path: Path, rows: Float[Tensor, "classes templates d"]) -> Float[Tensor, "classes d"]:
    """Of the templates of each class the normalised mean of what is normalised before."""
    lengths = rows.square().sum(-1).sqrt()
    wrong = [int(index) for index in (~(rows.isfinite().all(-1) & (lengths > 0))).any(1).nonzero().flatten()]
    if not wrong:
        rows = (rows / lengths[..., None]).mean(1)
        lengths = rows.square().sum(-1).sqrt()
        wrong = [int(index) for index in (lengths < EPS).nonzero().flatten()]
    if wrong:
        raise UsageError(
            f"{path}: {len(wrong)} of {len(rows)} rows of 'text_embeddings' ({some([str(row) for row in wrong])}) are "
            "zero, or no finite numbers, and have no direction. Write them again."
        )
    return (rows / lengths[:, None]).float()


def _class_names(path: Path, metadata: dict[str, str], count: int) -> tuple[str, ...]:
    try:
        names = json.loads(metadata.get("class_names", ""))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UsageError(
            f"{path} does not name its classes: its metadata need 'class_names', a JSON list of {count} texts in the "
            "order of the rows."
        )
    if len(names) != count:
        raise UsageError(
            f"{path} names {len(names)} classes, but has embeddings of {count}. Write both again together."
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UsageError(f"{path} names {some(twice, quoted=True)} more than once: give each class a name of its own.")
    return tuple(names)


def _scale(path: Path, scale: Tensor | None) -> float:
    if scale is None:
        return DEFAULT_SCALE
    value = float(scale.flatten()[0]) if scale.numel() == 1 else 0.0
    if not 0 < value < float("inf"):
        raise UsageError(
            f"{path}: 'logit_scale' must be one number above 0, the factor of the cosines itself and not its logarithm."
        )
    return value
