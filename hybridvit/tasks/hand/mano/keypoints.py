"""What the points of a hand are called and how they hang together: in every file, picture and table. Needs no torch."""

FINGERS = ("thumb", "index", "middle", "ring", "little")
"""In the order of keypoints and of fingertips."""

KEYPOINTS = ("wrist", *(f"{finger}_{number}" for finger in FINGERS for number in (1, 2, 3, "tip")))
"""The 21 keypoints, from the palm to the tip of each finger: FreiHAND's and OpenPose's order."""

BONES = tuple((number - 1 if number % 4 != 1 else 0, number) for number in range(1, len(KEYPOINTS)))
"""Keypoints that a bone joins, the one nearer to the wrist first."""

CHAIN_FINGERS = ("index", "middle", "little", "ring", "thumb")
"""The order of fingers in MANO's joints, which is another: of each finger three, after the wrist."""

JOINTS = ("wrist", *(f"{finger}_{number}" for finger in CHAIN_FINGERS for number in (1, 2, 3)))
"""The 16 joints that rotate, in MANO's order."""

PARENTS = tuple(-1 if joint == 0 else joint - 1 if joint % 3 != 1 else 0 for joint in range(len(JOINTS)))
"""The joint that each joint hangs on; -1 at the wrist."""

KEYPOINTS_OF_JOINTS = tuple(
    (*JOINTS, *(f"{finger}_tip" for finger in FINGERS)).index(keypoint) for keypoint in KEYPOINTS
)
"""Where each keypoint stands among the 16 joints followed by the five fingertips, thumb to little finger."""

PALM = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
"""The rotation of a right hand whose palm faces the camera, its fingers up."""
