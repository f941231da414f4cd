"""Load batches with two processes, print their ids, go on through SIGTERM for 50 batches, and end with a traceback."""

import multiprocessing
import signal

from hybridvit.data.generated import GeneratedImages
from hybridvit.data.loader import make_train_loader

if __name__ == "__main__":
    loader = make_train_loader(GeneratedImages(length=64), batch_size=4, num_steps=10**6, workers=2)
    batches = iter(loader)
    next(batches)
    asked: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    while not asked:
        next(batches)
    for _ in range(50):
        next(batches)  # the workers are still there
    raise RuntimeError("ends with a traceback that keeps everything alive")
