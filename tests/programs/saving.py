"""Save snapshots to a folder without end, and print the step of each that is done: saving.py FOLDER."""

import itertools
import sys
from pathlib import Path

import torch

from hybridvit.training.run.snapshot import save_snapshot

if __name__ == "__main__":
    for step in itertools.count(1):
        save_snapshot(Path(sys.argv[1]), step, {"w": torch.full((200_000,), float(step))}, keep=2)
        print(step, flush=True)
