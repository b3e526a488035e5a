"""The bare compute of an epoch of `fit --config configs/blog.yaml`: its steps on batches that are already in memory.

Usage: `python tests/benchmarks/bare_steps.py DATA_DIR`.

Prints the seconds of one epoch, and the machine's sgemm peak in GFLOP/s, measured before and after.
"""

import sys
from pathlib import Path
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from mnist_lit import CNN, MNISTDataModule
from mnist_lit.system.libraries import keep_freed_memory, set_up_libraries


def sgemm_peak(size: int = 1536, repeats: int = 8) -> float:
    """Return the best GFLOP/s of a product of two square matrices of floats."""
    a, b = torch.randn(2, size, size)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        a @ b
        seconds.append(perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


keep_freed_memory()  # as the command line does, also the next line
set_up_libraries()
torch.manual_seed(777)
data = MNISTDataModule(val_size=0, data_dir=str(Path(sys.argv[1])))
data.setup("fit")
batches = list(data.train_dataloader())
model = CNN()
optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
before = sgemm_peak()
start = perf_counter()
for pixels, labels in batches:
    optimizer.zero_grad()
    cross_entropy(model(pixels), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
seconds = perf_counter() - start
print(seconds, max(before, sgemm_peak()))
