"""A script as timm's are: it imports timm alone, has options, and loads with workers: timm_script.py --model NAME."""

import argparse

import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    model = timm.create_model(options.model).eval()
    loader = DataLoader(
        TensorDataset(torch.zeros(2, 3, 64, 64)),
        num_workers=options.workers,
        multiprocessing_context="spawn" if options.workers else None,
    )
    print(type(model).__module__, sum(model(images).shape[1] for (images,) in loader))
