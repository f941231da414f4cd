"""`hybridvit hand`: what there is to do with hands besides the commands of all tasks."""

import sys
from pathlib import Path

from hybridvit.tasks.hand.config import VERSIONS
from hybridvit.tasks.hand.mano.assets import find_assets


def render(
    output: Path,
    *,
    train: int = 4000,
    eval: int = 500,
    size: int = 112,
    seed: int = 0,
    hand: str = "generated",
) -> None:
    """Render pictures of hands in FreiHAND's layout, to try training and evaluation on.

    Everything about them is known: cameras, keypoints, vertices, poses and shapes. The same numbers give the same
    pictures; a folder that has them already is kept.

    Examples:
      hybridvit hand render runs/data/hands
      hybridvit hand render runs/data/few --train 100 --eval 20 --size 64

    Args:
        output: folder to make.
        train: hands to train on, each before four backgrounds.
        eval: hands to evaluate on.
        size: side of the pictures in pixels.
        seed: another one gives other hands.
        hand: the hand, "generated" or a file that `hybridvit mano convert` wrote; MANO's may not be passed on.
    """
    from hybridvit.tasks.hand.scenes import HandScenes, write_scenes  # needs torch

    assets = find_assets(hand)
    made = write_scenes(output, assets, HandScenes(train=train, evaluation=eval, size=size, seed=seed), _told)
    pictures = f"{train * len(VERSIONS):,} pictures to train on and {eval:,} to evaluate on"
    print(f"{'Rendered' if made else 'Kept'} {output}: {pictures}, of the {assets.kind} hand.")


def _told(done: int, of: int) -> None:
    """One line that counts, where someone looks."""
    if sys.stderr.isatty() and (done == of or done % 20 == 0):
        print(f"\r{done:,} of {of:,} hands", end="\n" if done == of else "", file=sys.stderr, flush=True)
