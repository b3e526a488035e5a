"""An epoch of the blog's arithmetic: the blog's loop, `fit`, and the bare compute of its steps, side by side.

Run `python tests/benchmarks/epoch.py [REPEATS]`: about 80 seconds a repeat on two cores. The loops are measured in
processes of their own, `epoch.py blog_loop DATA_DIR` and `epoch.py bare_steps DATA_DIR`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from measure import HERE, benchmark, fit, run

FLAGS = ["--data.val_size=0", "--trainer.max_epochs=1", "--trainer.limit_test_batches=0"]
FLOP = 60_000 * (3 * 2 * (28 * 28 * 32 * 9 + 14 * 14 * 64 * 32 * 9 + 3136 * 10) - 2 * 28 * 28 * 32 * 9)
"""The floating-point operations of an epoch: forward, and twice as much backward but for the gradient of the pixels."""


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Measure the loops and `fit`."""
    seconds: dict[str, list[float]] = {"the blog's loop": [], "fit": [], "bare steps": []}
    megabytes: dict[str, list[float]] = {"the blog's loop": [], "fit": [], "fit, 3 epochs": []}
    peaks = []
    run("-c", "from mnist_lit import MNISTDataModule; MNISTDataModule().prepare_data()", folder=folder)
    (folder / "blog" / "MNIST").mkdir(parents=True)
    (folder / "blog" / "MNIST" / "raw").symlink_to(folder / "data" / "MNIST" / "raw")
    run("-c", "from torchvision.datasets import MNIST; MNIST('blog', download=True)", folder=folder)  # extracts them
    for _ in range(repeats):
        blog = run(HERE / "epoch.py", "blog_loop", "blog", folder=folder)
        seconds["the blog's loop"].append(float(blog.out))
        megabytes["the blog's loop"].append(blog.megabytes)
        measured, results = fit(*FLAGS, folder=folder)
        seconds["fit"].append(results["fit"]["seconds"])
        megabytes["fit"].append(measured.megabytes)
        bare, peak = run(HERE / "epoch.py", "bare_steps", "data", folder=folder).out.split()
        seconds["bare steps"].append(float(bare))
        peaks.append(float(peak))
    megabytes["fit, 3 epochs"].append(fit(*FLAGS, "--trainer.max_epochs=3", folder=folder)[0].megabytes)
    middle = {name: median(values) for name, values in seconds.items()}
    ratios = {
        "the blog's loop / fit": middle["the blog's loop"] / middle["fit"],
        "fit / bare steps": middle["fit"] / middle["bare steps"],
        "fit / floor of the sgemm peak": middle["fit"] / (FLOP / median(peaks) / 1e9),
    }
    return {"seconds": seconds, "megabytes": megabytes, "sgemm_gflops": {"sgemm peak": peaks}, "ratios": ratios}


def blog_loop(data_dir: str) -> None:
    """Print the seconds of the blog's experiment: torchvision's data set and transform, the blog's network, Adam."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    sys.path.insert(0, str(HERE.parent))
    from helpers.blog import BlogCNN

    torch.manual_seed(777)
    loader = DataLoader(MNIST(data_dir, transform=ToTensor()), batch_size=100, shuffle=True, drop_last=True)
    model = BlogCNN()
    print(train(model, torch.optim.Adam(model.parameters(), lr=0.001), loader))


def bare_steps(data_dir: str) -> None:
    """Print the seconds of the steps of `fit --config configs/blog.yaml` on batches in memory, and the sgemm peak."""
    from mnist_lit.system.libraries import keep_freed_memory, set_up_libraries

    keep_freed_memory()  # as the command line does, also the next line
    set_up_libraries()
    import torch

    from mnist_lit import CNN, MNISTDataModule

    torch.manual_seed(777)
    data = MNISTDataModule(val_size=0, data_dir=data_dir)
    data.setup("fit")
    batches, model = list(data.train_dataloader()), CNN()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    before = sgemm_peak()
    print(train(model, optimizer, batches), max(before, sgemm_peak()))


def train(model: Any, optimizer: Any, batches: Iterable[Any]) -> float:
    """Train on batches, and return the seconds."""
    from torch.nn.functional import cross_entropy

    start = perf_counter()
    for pixels, labels in batches:
        optimizer.zero_grad()
        cross_entropy(model(pixels), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return perf_counter() - start


def sgemm_peak(size: int = 1536, repeats: int = 8) -> float:
    """Return the machine's best GFLOP/s of a product of two square matrices of floats."""
    import torch

    a, b = torch.randn(2, size, size)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        a @ b
        seconds.append(perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


if __name__ == "__main__":
    loops = {"blog_loop": blog_loop, "bare_steps": bare_steps}
    if loop := loops.get(" ".join(sys.argv[1:2])):
        loop(sys.argv[2])
    else:
        benchmark(measure, 5)
