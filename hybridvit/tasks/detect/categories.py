"""The classes of a model as the data set that it learnt from numbers them."""

from hybridvit.card import ModelCard
from hybridvit.tasks.detect.data_lists import Category

CATEGORY_IDS = "category_ids"  # in a card's class_facts


def categories_of(card: ModelCard) -> tuple[Category, ...]:
    """The classes of a card, as the data set that the model was trained on numbers them; else from 1."""
    names = card.class_names or tuple(f"class {label}" for label in range(int(card.options.get("num_classes", 80))))
    numbers = card.class_facts.get(CATEGORY_IDS) or range(1, len(names) + 1)
    return tuple(Category(number, name) for number, name in zip(numbers, names, strict=True))
