"""The blog's experiment as a bare loop: torchvision's data set and transform, the blog's network, Adam.

Usage: `python tests/benchmarks/blog_loop.py DATA_DIR`.

Prints the seconds of one epoch of 600 batches of 100.
"""

import sys
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from helpers.blog import BlogCNN

torch.manual_seed(777)
loader = DataLoader(MNIST(sys.argv[1], transform=ToTensor()), batch_size=100, shuffle=True, drop_last=True)
model = BlogCNN()
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
start = perf_counter()
for images, labels in loader:
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
print(perf_counter() - start)
