"""What there is to show: a recipe on pictures that come with the package, and the words of its report."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One way through everything. `lead` may have {time}, {cores} and {tested} in it."""

    recipe: str
    folder: str  # of its run, unless another is given
    make: str  # the target of the Makefile
    title: str  # behind the name of the model
    lead: str
    example: str = ""  # what is predicted by hand, inside the folder of the test pictures
    drawn: int = 0  # answers that are drawn, with the files that belong to them


DEMOS = {
    "digits": Demo(
        recipe="digits",
        folder="runs/demo",
        make="demo",
        title="on handwritten digits",
        lead="Trained from scratch on 1,437 images of 8×8 pixels in {time} on {cores} CPU cores, tested on {tested} "
        "others.",
        example="7",
    ),
    "segmentation": Demo(
        recipe="segment_scenes",
        folder="runs/demo-segmentation",
        make="demo-segmentation",
        title="on shapes over textured ground",
        lead="Trained from scratch on 600 pictures of 96×96 pixels and their masks in {time} on {cores} CPU cores, "
        "tested on {tested} others.",
        drawn=12,
    ),
    "detection": Demo(
        recipe="detect_scenes",
        folder="runs/demo-detection",
        make="demo-detection",
        title="on shapes over textured ground",
        lead="Trained from scratch on 600 pictures of 96×96 pixels, with boxes and masks, in {time} on {cores} CPU "
        "cores, tested on {tested} others.",
        drawn=12,
    ),
    "hand": Demo(
        recipe="hand_rendered",
        folder="runs/demo-hand",
        make="demo-hand",
        title="on rendered hands",
        lead="The mesh of a generated hand from one picture: trained from scratch on 4,000 rendered hands, each before "
        "four grounds, in {time} on {cores} CPU cores, tested on {tested} others.",
        drawn=8,
    ),
}
