"""Small and large models as ONNX files, each with weights that make every layer count, written without the proofs."""

from pathlib import Path

import torch
from trained_like import trained_like

import hybridvit
from hybridvit.export.draft import drafted
from hybridvit.export.exporter import Quantisation
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets import EXPORTERS

SMALL = {  # of digits' size: 32 px, ten classes
    "small": {},
    "small-int8": {"precision": "int8"},
    "small-uint8": {"pixels": "uint8"},
    "small-top5": {"pixels": "uint8", "top_k": 5},
}


def exported(name: str, folder: Path) -> Path:
    """The file of one of SMALL, or of a registered model, for one image at a time."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        model = (
            hybridvit.create_model("fastvit_debug", num_classes=10) if name in SMALL else hybridvit.create_model(name)
        )
        size = (32, 32) if name in SMALL else model.card.preprocessing.image_size
        folded = hybridvit.fold(trained_like(model), image_size=size if name.startswith("fastervit") else None)
        spec = GraphSpec(image_size=size, batch=1, **SMALL.get(name, {}))
        noise = torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(0))
        with drafted(folded, spec, EXPORTERS["onnx"], path) as draft:
            draft.write(Quantisation(images=noise) if spec.precision == "int8" else None)
    return path
