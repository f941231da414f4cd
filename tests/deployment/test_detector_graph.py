"""Whole detectors as graphs of one size: the same detections in torch.export and ONNX Runtime, an empty image too."""

from pathlib import Path

import pytest
import torch
from conftest import trained_like
from detectors import SIZE, detector
from torch import Tensor, nn

import hybridvit
from hybridvit.models.with_head import WithHead

NAMES = ("boxes", "scores", "labels", "masks")


class Answers(nn.Module):
    """A detector whose answers are a tuple."""

    def __init__(self, model: WithHead) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images)[name] for name in NAMES)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:.*create_unbacked_symint. is deprecated")
def test_a_cascade_detects_the_same_in_every_graph(tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    model = trained_like(detector("cascade_mask_rcnn"))
    for head in model.head.box_heads:
        nn.init.normal_(head.classes.weight, std=0.5)
        nn.init.normal_(head.boxes.weight, std=0.05)
    answers = Answers(hybridvit.fold(model)).eval()
    images = [*torch.randn(3, 1, 3, *SIZE), torch.zeros(1, 3, *SIZE)]
    program = torch.export.export(answers, (images[0],))
    torch.onnx.export(program, (images[0],), dynamo=True, verbose=False).save(tmp_path / "detector.onnx")
    session = InferenceSession(tmp_path / "detector.onnx")
    exported = program.module()
    for image in images:
        with torch.no_grad():
            expected, found = answers(image), exported(image)
            with pytest.MonkeyPatch.context() as patch:
                for module in ("boxes", "pooling", "rcnn"):
                    patch.setattr(f"hybridvit.tasks.detect.heads.{module}.keeps_shapes", lambda _: True)
                as_in_graph = answers(image)
        of_file = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        assert (expected[1] > 0).any()
        for name, value, form, same, other in zip(NAMES, expected, as_in_graph, found, of_file, strict=True):
            assert torch.equal(same, form), name
            torch.testing.assert_close(same, value, rtol=1e-6, atol=1e-6, msg=name)
            torch.testing.assert_close(torch.from_numpy(other), value, rtol=1e-5, atol=1e-4, msg=name)
