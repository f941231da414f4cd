"""What exported files answer to one picture, by the Python interface: PICTURE FILE... -> a JSON line for each file.

Ends with 1 if torch, torchvision or timm was imported for it.
"""

import json
import sys

import hybridvit
from hybridvit.errors import ImageDecodeError

if __name__ == "__main__":
    picture, *files = sys.argv[1:]
    for file in files:
        assert callable(hybridvit.load(file))
        (answer,) = hybridvit.Predictor(file)([picture])
        assert not isinstance(answer, ImageDecodeError)
        print(json.dumps(answer.to_dict()))
    assert not {"torch", "torchvision", "timm"} & sys.modules.keys(), "torch, torchvision or timm was imported"
