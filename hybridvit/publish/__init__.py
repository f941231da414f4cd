"""A finished run on the Hugging Face hub, where timm and transformers open it too."""

from hybridvit.publish.push import Pushed, push

__all__ = ["Pushed", "push"]
