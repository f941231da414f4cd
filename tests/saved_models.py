"""Small models with weights as after training, and the comparison of two."""

import torch
from torch import Tensor, nn

import hybridvit
from hybridvit.models.backbone import Backbone

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
FORMS = ("training", "released", "folded")


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights as after training: no scale, shift or statistic at its neutral value."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
        else:
            tensor.fill_(seed + 3)
    return model


def debug_model(form: str = "training", **options: object) -> Backbone:
    """The debug size of FastViT, of five classes and in that form; each time the same."""
    torch.manual_seed(0)
    model = randomised(hybridvit.create_model("fastvit_debug", **{"num_classes": 5, **options})).eval()
    return model if form == "training" else hybridvit.fold(model, released=form == "released")


def assert_same(left: nn.Module, right: nn.Module) -> None:
    """The same tensors, by name."""
    assert_equal(left.state_dict(), right.state_dict())


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """The same tensors, and of the same types."""
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)
