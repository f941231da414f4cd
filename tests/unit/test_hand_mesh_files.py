"""Other programs open the meshes: Khronos' validator finds no fault, and what is read is what was written."""

import io
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import hands
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from hybridvit.tasks.hand.animation import animated
from hybridvit.tasks.hand.drawn.mesh_files import FRONT, Skin, four_weights, glb, morphed_glb, obj, ply, skinned
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.quaternion import axis_angles, quaternions

SECONDS = (0.0, 0.04, 0.08, 0.2)
TYPES = {5121: "u1", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def video() -> list[Any]:
    """A hand that bends, in four frames."""
    ends = hands.answer(2)
    first = ends["rotations"]
    turns = [Slerp([0, 1], Rotation.from_matrix(first[:, j]))(np.array(SECONDS) / 0.2).as_matrix() for j in range(16)]
    rotations = np.stack(turns, 1)
    with torch.no_grad():
        moved = HandLayer(generated_hand()).double()(
            torch.from_numpy(rotations), torch.from_numpy(ends["shape"][:1]).expand(4, 10)
        )
    return [
        hands.result(
            vertices=(moved.vertices[t] - moved.keypoints[t, :1]).numpy(),
            keypoints=(moved.keypoints[t] - moved.keypoints[t, :1]).numpy(),
            camera=np.array((6.0, 0.1 * t, 0.4)), rotations=rotations[t],
        )
        for t in range(4)
    ]  # fmt: skip


def read(content: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON of a GLB and its arrays, after a check of all lengths."""
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
    scene = json.loads(content[20 : 20 + size])
    held, kind = struct.unpack_from("<I4s", content, 20 + size)
    assert kind == b"BIN\0"
    binary = content[28 + size :]
    assert len(binary) == held == scene["buffers"][0]["byteLength"]
    arrays = []
    for accessor in scene["accessors"]:
        view = scene["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        values = np.frombuffer(binary, TYPES[accessor["componentType"]], offset=view["byteOffset"],
                               count=accessor["count"] * WIDTHS[accessor["type"]])  # fmt: skip
        assert values.nbytes == view["byteLength"]
        arrays.append(values.reshape(accessor["count"], -1))
        if "min" in accessor:
            assert (accessor["min"], accessor["max"]) == (arrays[-1].min(0).tolist(), arrays[-1].max(0).tolist())
    return scene, arrays


def written() -> dict[str, bytes]:
    """Each form of GLB."""
    animation = animated(video(), SECONDS)
    assert animation.skin is not None
    return {"still": glb(hands.result().mesh), "morph": animation.morph, "skin": animation.skin.content}


def test_the_validator_of_khronos_finds_nothing(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('gltf-validator')"], capture_output=True).returncode:
        pytest.skip("needs node and the npm package gltf-validator; NODE_PATH tells where it is")
    program = Path(__file__).parents[1] / "programs/validate_gltf.js"
    for name, content in written().items():
        (tmp_path / f"{name}.glb").write_bytes(content)
        done = subprocess.run(
            [node, program, tmp_path / f"{name}.glb"], capture_output=True, check=True, env={**os.environ}
        )
        issues = json.loads(done.stdout)["issues"]
        assert issues["messages"] == [], name


def test_a_still_mesh_has_its_vertices_with_y_up_and_bones_in_the_colours_of_their_fingers() -> None:
    mesh = hands.result().mesh
    scene, arrays = read(glb(mesh))
    surface, bones = (each["primitives"][0] for each in scene["meshes"])
    np.testing.assert_allclose(arrays[surface["attributes"]["POSITION"]], mesh.vertices * FRONT, atol=1e-8)
    np.testing.assert_array_equal(arrays[surface["indices"]].reshape(-1, 3), mesh.faces)
    normals = arrays[surface["attributes"]["NORMAL"]]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (bones["mode"], len(arrays[bones["attributes"]["POSITION"]])) == (1, 40)
    assert scene["asset"]["copyright"] == "generated hand, Apache-2.0"
    tip = generated_hand().tips[2]
    outwards = arrays[surface["attributes"]["POSITION"]][tip] - mesh.vertices.mean(0) * FRONT
    assert normals[tip] @ outwards > 0


def test_a_morph_has_every_vertex_of_every_frame() -> None:
    results = video()
    scene, arrays = read(animated(results, SECONDS).morph)
    (primitive,) = scene["meshes"][0]["primitives"]
    sampler = scene["animations"][0]["samplers"][0]
    np.testing.assert_allclose(arrays[sampler["input"]][:, 0], SECONDS, atol=1e-7)
    weights = arrays[sampler["output"]].reshape(4, 3)
    first = arrays[primitive["attributes"]["POSITION"]]
    moves = np.stack([arrays[target["POSITION"]] for target in primitive["targets"]])
    for weight, result in zip(weights, results, strict=True):
        place = result.pixels(np.zeros((1, 3)))[0] - 60
        found = (first + np.einsum("t,tvc->vc", weight, moves)) * FRONT
        wanted = result.vertices + np.append(place / (6.0 * 60), 0)
        np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_a_skin_turns_joints_as_the_layer_does_and_tells_what_it_leaves_out() -> None:
    results = video()
    skin_file = animated(results, SECONDS).skin
    assert skin_file is not None
    assert skin_file.mean_mm < 0.3, "bulges, at the inside of joints"
    assert 0.1 < skin_file.largest_mm < 4
    scene, arrays = read(skin_file.content)
    attributes = scene["meshes"][0]["primitives"][0]["attributes"]
    np.testing.assert_allclose(arrays[attributes["WEIGHTS_0"]].sum(1), 1, atol=1e-6)
    assert not arrays[attributes["JOINTS_0"]][arrays[attributes["WEIGHTS_0"]] == 0].any()
    names = [scene["nodes"][node]["name"] for node in scene["skins"][0]["joints"]]
    assert (names[0], names[13]) == ("wrist", "thumb_1")
    turning = {
        each["target"]["node"]: arrays[scene["animations"][0]["samplers"][each["sampler"]]["output"]]
        for each in scene["animations"][0]["channels"]
        if each["target"]["path"] == "rotation"
    }
    for place, node in enumerate(scene["skins"][0]["joints"]):
        found = Rotation.from_quat(turning[node]).as_matrix()
        np.testing.assert_allclose(found, [result.rotations[place] for result in results], atol=1e-6)
        assert ((turning[node][1:] * turning[node][:-1]).sum(1) > 0).all(), "turns the short way"


def test_a_skin_is_moved_by_the_rules_of_gltf_to_where_the_frames_are() -> None:
    results = video()
    animation = animated(results, SECONDS)
    assert animation.skin is not None
    scene, arrays = read(animation.skin.content)
    nodes, skin = scene["nodes"], scene["skins"][0]
    now: list[dict[str, Any]] = [{**node} for node in nodes]
    for channel in scene["animations"][0]["channels"]:  # at the third frame
        sampler = scene["animations"][0]["samplers"][channel["sampler"]]
        now[channel["target"]["node"]][channel["target"]["path"]] = arrays[sampler["output"]][2]
    placed: dict[int, np.ndarray] = {}
    todo = [(root, np.eye(4)) for root in scene["scenes"][0]["nodes"]]
    while todo:
        number, above = todo.pop()
        local = np.eye(4)
        local[:3, :3] = Rotation.from_quat(now[number].get("rotation", (0, 0, 0, 1))).as_matrix()
        local[:3, 3] = now[number].get("translation", (0, 0, 0))
        placed[number] = above @ local
        todo += [(child, placed[number]) for child in now[number].get("children", [])]
    inverse = arrays[skin["inverseBindMatrices"]].reshape(-1, 4, 4).swapaxes(1, 2)
    joints = np.stack([placed[node] for node in skin["joints"]]) @ inverse
    attributes = scene["meshes"][0]["primitives"][0]["attributes"]
    rest = np.pad(arrays[attributes["POSITION"]], ((0, 0), (0, 1)), constant_values=1)
    chosen = joints[arrays[attributes["JOINTS_0"]]]
    found = np.einsum("vk,vkab,vb->va", arrays[attributes["WEIGHTS_0"]], chosen, rest)[:, :3] * FRONT
    place = (results[2].pixels(np.zeros((1, 3)))[0] - 60) / (6.0 * 60)
    off_mm = np.linalg.norm(found - results[2].vertices - np.append(place, 0), axis=1) * 1e3
    assert off_mm.mean() < 2 * animation.skin.mean_mm
    assert off_mm.max() < animation.skin.largest_mm + 0.001


def test_all_weights_give_the_layer_without_its_bulges() -> None:
    assets, said = generated_hand(), hands.answer(2)
    layer = HandLayer(assets).double()
    layer.pose_moves.zero_()
    with torch.no_grad():
        wanted = layer(torch.from_numpy(said["rotations"]), torch.from_numpy(said["shape"]))
    for place in range(2):
        skin = Skin.of(assets, said["shape"][place])
        found = skinned(skin, skin.weights, said["rotations"][place][None], skin.joints[:1])
        np.testing.assert_allclose(found[0], wanted.vertices[place].numpy(), atol=1e-7)
    places, kept = four_weights(np.array(((0.5, 0.2, 0.1, 0.1, 0.1), (0, 0, 1.0, 0, 0))))
    np.testing.assert_array_equal(places, ((0, 1, 2, 3), (2, 0, 0, 0)))
    np.testing.assert_allclose(kept[0], np.array((5, 2, 1, 1)) / 9, rtol=1e-6)


def test_rotations_are_told_as_scipy_tells_them() -> None:
    turns = Rotation.random(200, random_state=0)
    halves = Rotation.from_rotvec(np.pi * np.eye(3))
    for each in (turns, halves, Rotation.identity(2)):
        back = Rotation.from_quat(quaternions(each.as_matrix()))
        assert (back.inv() * each).magnitude().max() < 1e-7
    np.testing.assert_allclose(axis_angles(turns.as_matrix()), turns.as_rotvec(), atol=1e-9)
    np.testing.assert_allclose(axis_angles(np.eye(3)[None]), 0, atol=1e-12)


def test_obj_and_ply_are_read_back() -> None:
    mesh = hands.result().mesh
    rows = [line.split() for line in obj(mesh).decode().splitlines()]
    vertices = np.array([row[1:4] for row in rows if row[0] == "v"], float)
    np.testing.assert_allclose(vertices * FRONT, mesh.vertices, atol=1e-7)
    faces = np.array([[corner.split("//")[0] for corner in row[1:]] for row in rows if row[0] == "f"], int)
    np.testing.assert_array_equal(faces - 1, mesh.faces)
    trimesh = pytest.importorskip("trimesh", reason="reads the files as other programs do; an extra of development")
    for kind, content in (("obj", obj(mesh)), ("ply", ply(mesh)), ("glb", glb(mesh))):
        loaded = trimesh.load(io.BytesIO(content), file_type=kind, process=False)
        (found, *_) = loaded.geometry.values() if kind == "glb" else [loaded]
        np.testing.assert_allclose(found.vertices * FRONT, mesh.vertices, atol=1e-7, err_msg=kind)
        np.testing.assert_array_equal(found.faces, mesh.faces, err_msg=kind)
        if kind != "glb":
            np.testing.assert_allclose(found.visual.vertex_colors[:, :3], mesh.colours, atol=1, err_msg=kind)


def test_times_that_do_not_increase_are_refused() -> None:
    mesh = hands.result().mesh
    with pytest.raises(ValueError, match=r"2 frames were given 2 times \(0.1, 0.1\). An animation needs one for each"):
        morphed_glb(mesh, np.stack((mesh.vertices, mesh.vertices)), np.array((0.1, 0.1)))
    with pytest.raises(ValueError, match="no frames was asked for"):
        animated([], [])
