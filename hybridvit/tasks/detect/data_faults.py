"""What can be wrong with the boxes and masks of a data set, in words, and what to do about it."""

from typing import NamedTuple

from hybridvit.data.check_report import Severity


class Fault(NamedTuple):
    """One kind of fault."""

    severity: Severity  # an error is what no training can make sense of; the rest is left out or looked past
    what: str
    fix: str


FAULTS = {
    "missing-image": Fault(
        "error",
        "Pictures that the list names and that are not there",
        "Add the files, or take them off the list.",
    ),
    "image-size": Fault(
        "error",
        "Pictures of another size than the list says",
        "Annotate the files as they are, or restore those that were annotated: boxes of another size lie elsewhere.",
    ),
    "image-turned": Fault(
        "note",
        "Pictures whose boxes are those of the picture as it is stored, and are turned upright with it (EXIF)",
        "Nothing is to be done.",
    ),
    "turn-unclear": Fault(
        "warning",
        "Pictures that EXIF turns without changing their width and height, so that nothing tells whether their boxes "
        "were drawn before or after; they are taken for upright",
        "Look at one (hybridvit predict), or save the pictures upright and annotate those.",
    ),
    "box-form": Fault(
        "error",
        "Boxes that do not fit their pictures as they are read, but fit the other way: corners (x1, y1, x2, y2) "
        "against corner and size (x, y, width, height)",
        "Write them the way that the format asks for.",
    ),
    "normalised": Fault(
        "error",
        "Boxes of which no number is above 1, as if they were shares of the picture",
        "Multiply them by the width and height of the picture: this format counts pixels.",
    ),
    "absolute": Fault(
        "error",
        "Boxes with numbers above 1, where the format has shares of the picture",
        "Divide them by the width and height of the picture.",
    ),
    "empty-box": Fault(
        "warning",
        "Boxes without width or height, which are left out",
        "Draw them again, or remove them.",
    ),
    "beyond-image": Fault(
        "warning",
        "Boxes that reach more than 1 px beyond the picture, and are cut off there",
        "Look whether the list belongs to these files.",
    ),
    "far-beyond-image": Fault(
        "error",
        "Boxes of which more than a fifth lies beyond the picture",
        "Look whether the list belongs to these files, and whether boxes are corners or a corner and a size.",
    ),
    "duplicate-box": Fault(
        "warning",
        "Boxes of one class that lie on another (IoU above 0.98)",
        "Remove one of each pair: a model finds an object once.",
    ),
    "unknown-category": Fault(
        "error",
        "Objects of a category that the data set does not list",
        "Add the category to 'categories' (names, for YOLO), or correct the objects.",
    ),
    "duplicate-category": Fault(
        "error",
        "Categories that are listed twice",
        "Keep one of them, and give its objects its id.",
    ),
    "other-categories": Fault(
        "error",
        "Categories to validate on that are not those to train on",
        "Give both lists the same categories, with the same ids and names.",
    ),
    "duplicate-image-id": Fault(
        "error",
        "Ids that several pictures have, so that objects belong to all of them",
        "Number the pictures anew, and their objects with them.",
    ),
    "duplicate-image": Fault(
        "warning",
        "Pictures that are listed more than once",
        "Keep one entry of each.",
    ),
    "duplicate-annotation-id": Fault(
        "warning",
        "Ids that several objects have; they are numbered anew here",
        "Number them anew: other tools count such objects once.",
    ),
    "no-image": Fault(
        "warning",
        "Objects of pictures that are not listed, which are left out",
        "Add the pictures to 'images', or remove the objects.",
    ),
    "rle-size": Fault(
        "error",
        "Masks of another size than their picture",
        "Write them in the size of the picture: height first, then width.",
    ),
    "bad-mask": Fault(
        "error",
        "Masks that cannot be read",
        "Write them as polygons, or as COCO's run lengths.",
    ),
    "short-polygon": Fault(
        "warning",
        "Polygons of fewer than 3 points, which are left out",
        "Draw them again, or remove them.",
    ),
    "empty-mask": Fault(
        "warning",
        "Masks without a pixel, whose objects are left out",
        "Draw them again, or remove them.",
    ),
    "no-mask": Fault(
        "warning",
        "Pictures with objects without a mask, where others have one: up to a tenth of all objects are neither to be "
        "found nor to be avoided where masks are learnt; with more of them boxes alone can be learnt",
        "Draw the masks, or remove the objects.",
    ),
    "many-crowds": Fault(
        "warning",
        "Objects that are marked as a crowd (iscrowd), more than a fifth of all: none of them is learnt",
        "Some programs mark each object with run lengths so: set iscrowd to 0 for single objects.",
    ),
    "bad-row": Fault(
        "error",
        "Lines that cannot be read",
        "Write the numbers that the format asks for.",
    ),
    "no-list": Fault(
        "note",
        "Pictures without a list of their own, which are taken to show nothing",
        "Add one if they show something.",
    ),
}
"""By the word that machines know them by."""
