"""What `GET /models` tells of a model."""

import json
from typing import Any

from hybridvit.serve.served import Served

NUM_CLASSES_SHOWN = 20


def told(served: Served) -> dict[str, Any]:
    """JSON values."""
    card, opened, spec = served.card, served.opened, served.opened.spec
    parity = opened.metadata.get("hybridvit.parity")
    return {
        "name": served.name,
        "task": card.task,
        "architecture": card.architecture,
        "runtime": opened.runtime,
        "precision": spec.precision if spec is not None else "fp32",
        "input_size": list(spec.image_size if spec is not None else card.preprocessing.image_size),
        "num_classes": len(card.class_names),
        "classes": list(card.class_names[:NUM_CLASSES_SHOWN]),
        "sha256": served.sha256,
        "max_batch": served.max_batch,
        "batch_ms": {str(size): round(ms, 3) for size, ms in served.batch_times.items()},
        "parity": json.loads(parity) if parity else None,
        "ready": served.is_ready,
        "attention": "attention" in opened.overlays,
        "overlays": list(opened.overlays),
    }
