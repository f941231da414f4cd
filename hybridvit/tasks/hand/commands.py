"""`hybridvit mano`: MANO's files made into the plain ones that are used, and what is in these."""

import json as json_format
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.errors import UsageError
from hybridvit.tasks.hand.mano.assets import HandAssets, default_path, read_assets, write_assets
from hybridvit.tasks.hand.mano.file import ManoFile, read_mano, shapes_are_the_right_hands, with_left_shapes
from hybridvit.tasks.hand.mano.hand_assets import Side
from hybridvit.tasks.hand.mano.keypoints import BONES, KEYPOINTS, KEYPOINTS_OF_JOINTS

MM = 1e3  # in a metre


def convert(
    files: list[Path],
    *,
    output: Path | None = None,
    side: Side | None = None,
    double: bool = False,
    keep_left_fault: bool = False,
) -> None:
    """Make a plain file of MANO_RIGHT.pkl, once, after MANO's licence was accepted.

    Nothing of the pickle is run. The right hand is all that models need: pictures of left hands are mirrored. In
    MANO_LEFT.pkl the shape parameters move the hand sideways as if it were the right one; given with MANO_RIGHT.pkl, or
    after it, it is corrected. The result holds MANO's arrays, which may not be passed on.

    Examples:
      hybridvit mano convert mano_v1_2/models/MANO_RIGHT.pkl
      hybridvit mano convert MANO_RIGHT.pkl MANO_LEFT.pkl

    Args:
        files: MANO_RIGHT.pkl, MANO_LEFT.pkl or both, out of mano_v1_2.zip from https://mano.is.tue.mpg.de.
        output: file to write, of one hand; by default where it is looked for, ~/.cache/hybridvit/mano.
        side: which hand it has to be; by default that is told by the data.
        double: write float64.
        keep_left_fault: leave the left hand's shapes as they are, for annotations that were made with them.
    """
    if output is not None and len(files) > 1:
        raise UsageError(
            f"--output is {output}, but {len(files)} files are given. Convert one at a time, or leave it out."
        )
    read = [read_mano(file, side) for file in files]
    sides = [each.assets.side for each in read]
    if len(set(sides)) < len(sides):
        raise UsageError(f"Two of the files hold a {sides[0]} hand. Give one of each side at most.")
    right = next((each.assets for each in read if each.assets.side == "right"), None)
    for file, hand in zip(files, read, strict=True):
        if hand.assets.side == "left":
            hand = _left(hand, right, keep_fault=keep_left_fault)
        target = output or default_path(hand.assets.side)
        if output is None:
            target.parent.mkdir(parents=True, exist_ok=True)
        write_assets(hand.assets, target, double=double)
        for remark in hand.remarks:
            print(remark, file=sys.stderr)
        print(f"Wrote {target}: the {hand.assets.side} hand of {file}, {len(hand.assets.v_template)} vertices")
    print("It holds MANO's arrays, which may not be passed on: keep it where others do not copy it from.")


def info(file: Path | None = None, *, json: bool = False) -> None:
    """Tell what hand is in a file: side, kind, size, lengths of bones.

    Examples:
      hybridvit mano info
      hybridvit mano info hand-right.safetensors --json

    Args:
        file: file that `hybridvit mano convert` has written; by default where that writes the right hand.
        json: print one JSON object.
    """
    path = file or default_path()
    facts = _facts(read_assets(path))
    if json:
        print(json_format.dumps(facts))
        return
    print(f"{path}: the {facts['side']} hand, {facts['kind']}, {facts['vertices']} vertices, {facts['faces']:,} faces")
    print(f"  content  {facts['sha256']}")
    print(f"  source   {facts['source_sha256'] or 'not from a file'}")
    print(f"  licence  {facts['licence']}")
    print(f"  span     {' x '.join(f'{length:.1f}' for length in facts['span_mm'])} mm")
    for bone, length in facts["bones_mm"].items():
        print(f"  {bone:<20}  {length:5.1f} mm")


def _left(hand: ManoFile, right: HandAssets | None, *, keep_fault: bool) -> ManoFile:
    """The left hand with its shapes corrected where they are wrong, and a remark that says so."""
    if right is None and default_path().is_file():
        right = read_assets(default_path())
    if right is None:
        remark = (
            "Whether the shapes of the left hand have their known fault can be told beside the right hand alone: "
            "convert MANO_RIGHT.pkl too, first or at once."
        )
    elif not shapes_are_the_right_hands(hand.assets, right):
        return hand
    elif keep_fault:
        remark = "The shapes of the left hand move it sideways as if it were the right one: left so, as asked for."
    else:
        hand = ManoFile(assets=with_left_shapes(hand.assets), remarks=hand.remarks)
        remark = (
            "The shapes of the left hand moved it sideways as if it were the right one, a known fault of "
            "MANO_LEFT.pkl: corrected. --keep_left_fault leaves it, for annotations that were made with it."
        )
    return ManoFile(assets=hand.assets, remarks=(*hand.remarks, remark))


def _facts(assets: HandAssets) -> dict[str, Any]:
    """What there is to tell of a hand; lengths are those of the mean shape at rest."""
    joints = np.concatenate([assets.joint_regressor @ assets.v_template, assets.v_template[assets.tips]])
    keypoints = joints[list(KEYPOINTS_OF_JOINTS)]
    bones = {
        f"{KEYPOINTS[start]} - {KEYPOINTS[end]}": round(
            MM * float(np.linalg.norm(keypoints[end] - keypoints[start])), 2
        )
        for start, end in BONES
    }
    return {
        **assets.notes(),
        "sha256": assets.sha256,
        "vertices": len(assets.v_template),
        "faces": len(assets.faces),
        "span_mm": [round(MM * float(length), 2) for length in np.ptp(assets.v_template, axis=0)],
        "bones_mm": bones,
    }
