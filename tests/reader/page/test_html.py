"""A page has a model, allows its own scripts only, and its network classifies as the checkpoint's does."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RUN, TRAIN, Command
from reader.helpers.pages import describe, page_of
from test_networks import MLP, ResidualNetwork
from torch import nn

from mnist_lit import DigitClassifier
from mnist_lit.reader.page import html
from mnist_lit.runs.checkpoints import Checkpoint

TEXT = "</script><script>alert(1)</script><!-- &amp; \N{SNOWMAN}"


def elements(page: str) -> list[tuple[str, str]]:
    """Return the attributes and the text of each script."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def test_page_has_the_model_and_any_text_stays_text() -> None:
    page = html.write_page({"classes": [TEXT]})
    (attributes, model), *scripts = elements(page)
    assert "application/json" in attributes
    assert json.loads(model)["classes"] == [TEXT]
    assert len(scripts) == 5
    assert "alert(1)</script>" not in page


def test_policy_stands_before_all_that_it_is_for_and_nothing_is_requested() -> None:
    """The tests of the template show that the browser allows the page's own scripts with this policy."""
    page = html.write_page({"classes": []})
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert {name: allowed[name] for name in ("default-src", "base-uri", "form-action")} == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert re.fullmatch(r"('sha256-\S{44}' ?){5}", allowed["script-src"])
    assert re.fullmatch(r"'sha256-\S{44}'", allowed["style-src"])
    assert page.index("Content-Security-Policy") < page.index("<style") < page.index("<script")
    assert not re.findall(r"<[^>]*\s(?:src|href)=|url\(|import\(", page), "no other file is named"


def node_probabilities(classifier: DigitClassifier, pixels: torch.Tensor) -> torch.Tensor:
    classify = html.node_classifier(describe(classifier, pixels.shape[1:]))
    if not classify:
        pytest.skip("no Node.js")
    return classify(pixels)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (1, 28, 28)),
        ({"channels": [3, 4], "convolutions": [2, 1], "kernel_sizes": [5, 2], "batch_norm": True}, (3, 32, 30)),
        ({"channels": [3], "padding": [2], "pooling": [3], "dropout": 0.5, "classes": 4}, (1, 9, 11)),
        ({"channels": [3, 4], "activation": "gelu", "batch_norm": True, "views": 6}, (3, 12, 11)),
    ],
    ids=["default", "batch norm", "pooling by 3", "GELU and views"],
)
def test_network_in_node_has_the_same_probabilities(settings: dict[str, Any], shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    classifier = DigitClassifier(shape=shape, **settings).eval()
    classifier.temperature.fill_(0.7)
    pixels = torch.randint(256, (5, *shape), dtype=torch.uint8)
    with torch.inference_mode():
        expected = (classifier(pixels) / 0.7).softmax(dim=1)
    torch.testing.assert_close(node_probabilities(classifier, pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "network",
    [MLP(), ResidualNetwork()],
    ids=["MLP", "residual"],
)
def test_other_networks_in_node_have_the_same_probabilities(network: nn.Module) -> None:
    classifier = DigitClassifier()
    classifier.network = network  # type: ignore[assignment]  # any module from pixels to logits
    pixels = torch.randint(256, (5, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        expected = classifier.eval()(pixels).softmax(dim=1)
    torch.testing.assert_close(node_probabilities(classifier, pixels), expected, rtol=0, atol=1e-5)


def test_node_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mnist_lit.reader.page.html.shutil.which", lambda _: sys.executable
    )  # which cannot read JavaScript
    classify = html.node_classifier({})
    assert classify
    with pytest.raises(ValueError, match=r"failed with status 1: SyntaxError"):
        classify(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))


def test_page_of_the_default_network_is_small() -> None:
    assert len(page_of(DigitClassifier())) < 550_000


def test_page_has_the_same_output(trained: Command) -> None:
    out = trained.succeed("export", "--output=digits.html")
    if shutil.which("node"):
        assert "500 test images classified alike, probabilities differ by" in out
    else:
        assert "without Node.js, not compared with the checkpoint" in out
    page = Path("digits.html").read_text(encoding="utf-8")
    assert '"kind":"digits"' in page
    assert "trained on MNIST" in page


def test_page_for_drawings_that_are_no_digits_is_refused(trained: Command) -> None:
    content = Checkpoint.read(RUN.checkpoints / "best.ckpt").content
    content["datamodule_hyper_parameters"]["dataset"] = "FashionMNIST"
    torch.save(content, "clothes.ckpt")
    code, _, err = trained("export", "--ckpt_path=clothes.ckpt", "--output=clothes.html")
    message = "the checkpoint classifies FashionMNIST: a page reads digits or photographs"
    assert (code, err) == (2, f"error: {message}\n")


def test_a_model_card_stands_beside_the_page(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lit.reader.page.html.shutil.which", lambda _: None)  # compared in another test
    out = trained.succeed("export", "--output=mine.html")
    assert "without Node.js, not compared with the checkpoint: mine.html" in out
    card = Path("mine.html.md").read_text(encoding="utf-8")
    assert "Open it in a browser" in card
    assert "input: " not in card


def test_the_room_imports_nothing_of_lightning() -> None:
    modules = [f"mnist_lit.reader.{name}" for name in ("pictures", "page.html")]
    code = f"import sys, {', '.join(modules)}; sys.exit(any('lightning' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=TRAIN.parent, check=False).returncode == 0
