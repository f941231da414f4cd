"""Files about several hands: those of a video in motion, and a page to turn those of pictures on."""

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec

from hybridvit.tasks.hand.animation import animated
from hybridvit.tasks.hand.drawn.viewer import ViewedHand, viewer_page
from hybridvit.tasks.hand.result import HandResult

MOST_VIEWED = 24  # hands of a page


def of_video(results: Sequence[HandResult], seconds: Sequence[float]) -> dict[str, bytes]:
    """The hand of a video as animations, with every vertex and as joints that turn, and its joints' angles as CSV."""
    times = [each - seconds[0] for each in seconds]
    found = animated(results, times)
    files = {"glb": found.morph}
    if found.skin is not None:
        files["skin.glb"] = found.skin.content
    if results[0].angles:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["seconds", *results[0].angles])
        for time, result in zip(seconds, results, strict=True):
            table.writerow([f"{time:.4f}", *(f"{value:.2f}" for value in result.angles.values())])
        files["angles.csv"] = text.getvalue().encode()
    return files


def of_pictures(names: Sequence[str], results: Sequence[HandResult]) -> dict[str, bytes]:
    """A page that shows the first of the hands, to be turned with the mouse, where plotly is there to make it."""
    if find_spec("plotly") is None:
        return {}
    hands = [ViewedHand(name=name, mesh=result.mesh) for name, result in zip(names, results, strict=True)]
    page = viewer_page(hands[:MOST_VIEWED], f"Hands in {len(hands):,} pictures")
    return {"hands.html": page.encode()}
