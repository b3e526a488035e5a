"""The model card of an exported file says what it is, how to use it and how good it is."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RUN, Command


@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_the_card_describes_the_file_and_its_example_runs(trained: Command, suffix: str) -> None:
    out = trained.succeed("export", f"--output=mine.{suffix}")
    assert f"and its model card mine.{suffix}.md" in out
    card = Path(f"mine.{suffix}.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    tested = RUN.results()["test"]
    (metric,) = header["model-index"][0]["results"][0]["metrics"]
    assert metric == {"type": "accuracy", "value": tested["accuracy"]}
    assert f"{10_000 - tested['correct']:,} errors in 10,000" in card
    assert "channels:\n  - 4\n  - 8" in card
    assert "Expected calibration error" in card
    assert "seed 777" in card
    assert "trainer.max_epochs: 2" in card
    assert str(Path.cwd()) not in card, "no paths of this machine"
    assert header["datasets"] == ["ylecun/mnist"]
    variables: dict[str, Any] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], variables)  # the example of the card
    assert variables["probabilities"].shape == (3, 10)
