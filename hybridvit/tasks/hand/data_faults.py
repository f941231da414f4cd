"""What can be wrong with the labels of hands, in words, and what to do about it."""

from collections.abc import Sequence
from typing import NamedTuple

from hybridvit.data.check_report import Finding, Severity, finding

FARTHEST_M = 1.0  # a keypoint from the wrist, in any hand
APART_M = 1e-3  # keypoints of the mesh from those of the list; a bone from its length in the list
OTHER_MANO_M = 2e-3  # vertices from those that the parameters give, in the mean


class Fault(NamedTuple):
    """One kind of fault."""

    severity: Severity  # an error is what no training can make sense of
    what: str
    fix: str


FAULTS = {
    "label-counts": Fault(
        "error", "Lists of one split that are not of one length", "Unpack all lists of one release again."
    ),
    "missing-image": Fault(
        "error", "Pictures that the labels are of and that are not there", "Unpack the pictures again."
    ),
    "surplus-image": Fault(
        "error",
        "Pictures that no label is of: there have to be as many as labels, or four times as many",
        "Look whether lists and pictures are of one release.",
    ),
    "not-finite": Fault(
        "error", "Labels with numbers that are not finite", "Correct these entries, or remove them and their pictures."
    ),
    "millimetres": Fault(
        "error",
        f"Hands with a keypoint more than {FARTHEST_M:.0f} m from the wrist, as if they were in millimetres",
        "Divide xyz, verts and scale by 1000: lengths are in metres.",
    ),
    "behind-camera": Fault(
        "error",
        "Hands with a point that is not in front of the camera (z is not above 0)",
        "Write points in the axes of the camera: x to the right, y down, z away from it.",
    ),
    "bad-camera": Fault(
        "error",
        "Cameras that are none: focal lengths have to be above 0, and the last row 0, 0, 1",
        "Write the matrix of each camera in pixels: fx, 0, cx; 0, fy, cy; 0, 0, 1.",
    ),
    "outside": Fault(
        "warning",
        "Hands of which no keypoint lies in the picture",
        "Look whether the cameras are those of these pictures, in their size.",
    ),
    "bone-length": Fault(
        "warning",
        f"Hands whose bone 9-10 differs from the list of scales by more than {1000 * APART_M:.0f} mm",
        "Look whether the lists are of one release and in one order.",
    ),
    "other-hand": Fault(
        "warning",
        f"Meshes whose keypoints differ from the list by more than {1000 * APART_M:.0f} mm in the mean, by the joints "
        "and fingertips of the hand that models are to move",
        "Take the hand that the set was made with (--hand.assets), and the lists of FreiHAND_pub_v2.",
    ),
    "old-release": Fault(
        "warning",
        f"Meshes that differ from those of their MANO parameters by more than {1000 * OTHER_MANO_M:.0f} mm in the "
        "mean, as those of FreiHAND's first release do",
        "Fetch FreiHAND_pub_v2: the labels were corrected on 22 October 2019.",
    ),
    "grey": Fault(
        "warning", "Pictures that are not in colours (RGB) in their files, and are converted", "Nothing has to be done."
    ),
    "no-hand-to-compare": Fault(
        "note",
        "Splits whose meshes were not compared with MANO, which is not there",
        "Run `hybridvit mano convert MANO_RIGHT.pkl` once.",
    ),
}


def of_kind(kind: str, examples: Sequence[str], number: int | None = None) -> list[Finding]:
    """The finding of that kind, or none where there is no example."""
    fault = FAULTS[kind]
    return finding(fault.severity, kind, fault.what, examples, number, fix=fault.fix)
