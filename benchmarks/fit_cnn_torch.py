"""Training a small convolutional network by `fit` against a plain PyTorch loop."""

import time
from pathlib import Path

from . import _cnn, fit_cnn

TITLE = "the same CNN against a plain PyTorch loop"
PEER = "torch 2.13.0, eager"
UNIT = "steps/s"
TARGET = "–"
BETTER = "higher"

ours = fit_cnn.ours


def peer(folder: Path) -> dict:
    import torch

    torch.manual_seed(0)
    layers = []
    for a, b in zip(_cnn.CHANNELS, _cnn.CHANNELS[1:]):
        layers += [torch.nn.Conv2d(a, b, 3, padding=1), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network.append(torch.nn.Linear(_cnn.CHANNELS[-1], _cnn.CLASSES))
    optimizer = torch.optim.Adam(network.parameters(), _cnn.RATE)
    images, labels = _cnn.digits()
    batches = _cnn.shuffled(torch.tensor(images), torch.tensor(labels).long())
    losses, start = [], time.perf_counter()
    for step in range(fit_cnn.STEPS):
        if step == fit_cnn.STEPS // 10:
            start = time.perf_counter()
        image, label = next(batches)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(image), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step == 0:
            first = time.perf_counter() - start
    rate = (fit_cnn.STEPS - fit_cnn.STEPS // 10) / (time.perf_counter() - start)
    return {"values": [rate], "compile": first, "accuracy": f"loss {float(torch.stack(losses[-50:]).mean()):.3f}"}
