"""Print the micro-batch that is found for a step of 32 images without a limit, and for one of 4,096 in 400 MiB."""

import dataclasses
import resource
from pathlib import Path

import torch
from lightning_fabric import Fabric
from tiny_runs import TINY, TinyTask

from hybridvit.training.auto_batch import find_micro_batch
from hybridvit.training.start import material_of

if __name__ == "__main__":
    torch.set_num_threads(1)
    data = dataclasses.replace(TINY.data, total_batch=4096, micro_batch=0, image_size=64)
    recipe = dataclasses.replace(TINY, data=data)
    fabric = Fabric(accelerator="cpu", devices=1)
    task = TinyTask()
    material = material_of(recipe, task)
    small = dataclasses.replace(recipe, data=dataclasses.replace(data, total_batch=32))
    print(find_micro_batch(small, fabric, task, material, say=lambda _: None))
    held = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 400 * 2**20, resource.RLIM_INFINITY))
    print(find_micro_batch(recipe, fabric, task, material, say=lambda _: None))
