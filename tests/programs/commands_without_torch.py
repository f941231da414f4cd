"""Run commands one after the other: commands_without_torch.py '[["list"], ["info", "--help"]]'.

Ends with 1 if one of them fails, or if torch, torchvision or timm was imported for them; the last line is the seconds
that they took.
"""

import json
import sys
import time

if __name__ == "__main__":
    began = time.perf_counter()
    from hybridvit.cli import main

    for words in json.loads(sys.argv[1]):
        assert main(words) == 0, words
    assert not {"torch", "torchvision", "timm"} & sys.modules.keys(), "torch, torchvision or timm was imported"
    print(time.perf_counter() - began)
