"""A classifier's ONNX file served by LitServe 0.2.19, with its batching: litserve_server.py FILE PORT BATCH TIMEOUT_S

Runs in an environment of its own, without hybridvit. It does for a request what hybridvit's service does: decodes the
picture, prepares it as the file says, and answers with the five most probable classes. LitServe takes no raw bodies,
so a picture comes as base64 in JSON; of its ways that is the one without a parser of forms.
"""

import base64
import io
import json
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from PIL import Image


class Classifier(litserve.LitAPI):
    """As LitServe's guide has it: each of these is called for a request, or for a batch."""

    def setup(self, device: str) -> None:
        """Open the file, with threads that sleep while they wait, as hybridvit does."""
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        card = json.loads(self.session.get_modelmeta().custom_metadata_map["hybridvit.card"])
        self.names, prepared = card["class_names"], card["preprocessing"]
        self.size = tuple(prepared["image_size"])
        self.mean, self.std = (np.array(prepared[key], np.float32)[:, None, None] for key in ("mean", "std"))

    def decode_request(self, request: dict[str, Any], **_: Any) -> np.ndarray:
        """The picture, as the model takes it."""
        picture = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        picture = picture.resize(self.size[::-1], Image.Resampling.BICUBIC)
        return (np.asarray(picture, np.float32).transpose(2, 0, 1) / 255 - self.mean) / self.std  # c h w

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Images of one batch."""
        return np.stack(inputs)

    def predict(self, images: np.ndarray, **_: Any) -> np.ndarray:
        """The logits; a server without batching gives one image."""
        batch = images if images.ndim == 4 else images[None]
        logits = self.session.run(None, {"images": batch})[0]
        return logits if images.ndim == 4 else logits[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """The answers of one batch."""
        return list(output)

    def encode_response(self, logits: np.ndarray, **_: Any) -> dict[str, Any]:
        """The five most probable classes."""
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares, kind="stable")[:5]
        return {
            "predictions": [
                {"class": self.names[label], "index": int(label), "probability": round(float(shares[label]), 6)}
                for label in best
            ]
        }


if __name__ == "__main__":
    api = Classifier(max_batch_size=int(sys.argv[3]), batch_timeout=float(sys.argv[4]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", log_level="warning", generate_client_file=False)
