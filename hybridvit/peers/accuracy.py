"""Published accuracies by name, ours and others'."""

from hybridvit.models.registry import VARIANTS, Variant
from hybridvit.peers.papers import TABLES
from hybridvit.peers.peer import Accuracy, Training
from hybridvit.peers.timm_names import PEERS


def published_accuracy(name: str, image_size_px: int | None = None) -> Accuracy | None:
    """The published accuracy of one of ours (its plain weights), of a timm name with its tag, or of an alias.

    `image_size_px` asks for that at another side than the usual one. None where nothing is published: an unknown
    name, weights without an ImageNet-1k head, another size.
    """
    if name in VARIANTS:
        known = _of_ours(VARIANTS[name])
    elif name in PEERS:
        known = PEERS[name].accuracies
    else:
        return None
    return next((each for each in known if image_size_px in (None, each.image_size_px)), None)


def _of_ours(variant: Variant) -> tuple[Accuracy, ...]:
    """Of the released weights, which is what can be run; then what the papers state of other sizes."""
    published = variant.published
    top1, source = published.top1, published.source
    training: Training = "plain"
    for tag, weights in published.weights:
        if "dist" not in tag:
            top1, source = weights.top1, weights.source
            training = "more data" if "21k" in tag else "plain"
    if top1 is None:
        return ()
    usual = Accuracy(top1=top1, image_size_px=published.image_size_px, training=training, source=source)
    table = TABLES["fastvit-5"]
    others = (row for row in table.rows if row.model == variant.name and row.image_size_px != usual.image_size_px)
    return usual, *(
        Accuracy(top1=row.top1, image_size_px=row.image_size_px, training="plain", source=table.source)
        for row in others
    )
