"""What the blog's test on pixels 0-255 costs a network that was trained on pixels 0-1.

Run `python tests/benchmarks/raw_pixels.py runs/blog`, after `recipes.py blog`. The figures are in
`docs/from-loop-to-lightning.md`.
"""

from statistics import mean

import torch
from measure import save
from mistakes import read_experiment


def main() -> None:
    """Test the network of each seed twice, and print its accuracies."""
    networks, pixels, labels = read_experiment(__doc__)
    found = {}
    for name, factor in (("0-1", 1), ("0-255", 255)):  # the network divides by 255
        with torch.inference_mode():
            answers = [
                torch.cat([network(part * float(factor)) for part in torch.split(pixels, 500)]) for network in networks
            ]
        found[name] = [(answer.argmax(dim=1) == labels).float().mean().item() for answer in answers]
        print(f"pixels {name}: {mean(found[name]):.2%} ({', '.join(f'{accuracy:.2%}' for accuracy in found[name])})")
    save("raw_pixels", {"test_accuracy": found})


if __name__ == "__main__":
    main()
