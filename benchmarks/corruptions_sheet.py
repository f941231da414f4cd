"""All 19 corruptions of one picture beside each other: python benchmarks/corruptions_sheet.py SHEET.jpg [--severity 3]

The picture comes with scikit-learn; it is prepared as ImageNet-C's are, and drawn before it is stored as JPEG. Needs
hybridvit[robustness,digits].
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from hybridvit.data.preprocess import cut
from hybridvit.evaluate.corruptions.corrupt import corrupt
from hybridvit.evaluate.corruptions.names import ALL, SEVERITIES
from hybridvit.evaluate.corruptions.stored import OFFICIAL

COLUMNS, SIDE_PX, CAPTION_PX, GAP_PX = 5, 224, 22, 6


def sheet(severity: int) -> Image.Image:
    """The picture as it is, and under each corruption, with their names."""
    picture = cut(Image.fromarray(load_sample_image("china.jpg")), OFFICIAL)
    shown = {"as it is": picture} | {name: corrupt(picture, name, severity, "china.jpg") for name in ALL}
    wide, high = SIDE_PX + GAP_PX, SIDE_PX + CAPTION_PX + GAP_PX
    rows = -(-len(shown) // COLUMNS)
    drawn = Image.new("RGB", (COLUMNS * wide + GAP_PX, rows * high + GAP_PX), "white")
    pen = ImageDraw.Draw(drawn)
    for number, (name, each) in enumerate(shown.items()):
        left, top = GAP_PX + number % COLUMNS * wide, GAP_PX + number // COLUMNS * high
        pen.text((left + 2, top + 3), name, fill="black", font_size=15)
        drawn.paste(each, (left, top + CAPTION_PX))
    return drawn


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--severity", type=int, choices=SEVERITIES, default=3)
    asked = parser.parse_args()
    sheet(asked.severity).save(asked.output, quality=88)


if __name__ == "__main__":
    main()
