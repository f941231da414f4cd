"""The names of the released DINO checkpoints, in both directions."""

import pytest
import torch
from dino import KEYS, SMALL
from torchvision.models import resnet50

from hybridvit.checkpoints.matching import shapes_of
from hybridvit.errors import CheckpointError
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.head import DINOHead
from hybridvit.tasks.detect.dino.names import from_released, to_released

STORED_ONCE = torch.zeros(())


def small_head(*, shared_heads: bool = True) -> DINOHead:
    head = DINOHead(DINOConfig(**{**vars(SMALL), "shared_heads": shared_heads}))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def test_a_released_checkpoint_is_our_head_and_torchvisions_resnet() -> None:
    listed = {name: tuple(shape) for name, shape in KEYS["released_4scale_r50"].items()}
    assert len(listed) == 626
    released = from_released({f"module.{name}": STORED_ONCE.expand(shape) for name, shape in listed.items()})
    with torch.device("meta"):
        head, resnet = DINOHead(DINOConfig(channels=(512, 1024, 2048), num_classes=91)), resnet50()
    del resnet.fc
    backbone = {name: shape for name, shape in shapes_of(resnet.state_dict()).items() if "num_batches" not in name}
    assert released.shared_heads
    assert shapes_of(released.head) == shapes_of(head.state_dict())
    assert shapes_of(released.backbone) == backbone
    own = sum(parameter.numel() for parameter in head.parameters())
    convolutions = sum(tensor.numel() for tensor in released.backbone.values() if tensor.ndim == 4)  # norms are frozen
    assert own == KEYS["released_parameters"]["without_backbone"] == 23_438_270
    assert own + convolutions == KEYS["released_parameters"]["total"] == 46_893_182
    theirs = {name: shape for name, shape in listed.items() if not name.startswith("backbone.")}
    assert shapes_of(to_released(released.head)) == theirs


@pytest.mark.parametrize("shared_heads", [True, False])
def test_names_survive_the_round_trip(shared_heads: bool) -> None:
    head = small_head(shared_heads=shared_heads)
    released = from_released(to_released(head.state_dict()))
    assert released.shared_heads == shared_heads
    assert not released.backbone
    assert released.head.keys() == head.state_dict().keys()
    assert all(torch.equal(released.head[name], tensor) for name, tensor in head.state_dict().items())


def test_a_second_copy_that_differs_is_refused() -> None:
    tensors = to_released(small_head().state_dict())
    tensors["transformer.decoder.bbox_embed.1.layers.0.bias"] = torch.ones(32)
    with pytest.raises(CheckpointError) as refused:
        from_released(tensors, "dino.pth")
    assert str(refused.value).startswith(
        "dino.pth: 'bbox_embed.1.layers.0.bias' and 'transformer.decoder.bbox_embed.1.layers.0.bias' are two names of "
        "one tensor, but hold different values."
    )


def test_an_unknown_name_stands_for_itself_and_has_none_in_released_files() -> None:
    assert from_released({"query_scale": STORED_ONCE}).head == {"query_scale": STORED_ONCE}
    state = small_head().state_dict() | {"query_scale": STORED_ONCE}
    with pytest.raises(CheckpointError, match="'query_scale' has no name in the released checkpoints of DINO"):
        to_released(state)
