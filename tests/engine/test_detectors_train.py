"""Detectors in long and in shared trainings: an image without objects on one of two processes, sizes that change."""

import gc
from pathlib import Path

import pytest
import torch
import torch.distributed
from detectors import SIZE, detector, target
from peak import forget_peak, peak_bytes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hybridvit.batch import Batch
from hybridvit.task import Moment
from hybridvit.tasks.detect.objective import DetectObjective

MOMENT = Moment(step=0, total_steps=10, averaged=None)


def learn_together(folder: Path) -> None:
    """One of two processes has an image without objects: no process waits for the other, and all gradients agree."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for head in ("cascade_mask_rcnn", "dino"):
        torch.manual_seed(3)
        model = DistributedDataParallel(detector(head))
        torch.manual_seed(rank)
        for counts in ((2, 0), (0, 3), (0, 0)):
            model.zero_grad()
            batch = Batch(torch.randn(1, 3, *SIZE), [target(counts[rank])], torch.zeros(1))
            DetectObjective().loss(model, batch, MOMENT).backward()
            for name, parameter in model.named_parameters():
                own = parameter.grad
                assert own is not None, name
                assert own.isfinite().all(), name
                both = [torch.empty_like(own) for _ in range(2)]
                torch.distributed.all_gather(both, own)
                assert torch.equal(*both), (head, counts, name)


@pytest.mark.nightly
@pytest.mark.parametrize("backbone", ["fastvit_debug", "fastervit_debug"])
@pytest.mark.parametrize("head", ["mask_rcnn", "dino"])
def test_fifty_changing_sizes_leave_memory_flat(head: str, backbone: str) -> None:
    model = detector(head, backbone)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    forget_peak()  # of earlier tests, below which nothing would be seen
    peaks = []
    for step in range(100):
        size = (65 + 13 * (step % 50) % 97, 65 + 29 * (step % 50) % 101)  # 50 sizes, twice
        batch = Batch(torch.randn(1, 3, *size), [target(step % 4, size)], torch.zeros(1))
        DetectObjective().loss(model, batch, MOMENT).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in (49, 99):
            gc.collect()
            peaks.append(peak_bytes() / 2**20)
    assert peaks[1] - peaks[0] < 25  # MiB, in the second round over the same sizes
