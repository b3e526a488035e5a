"""Export a network to a page of one file that classifies drawings or pictures, and run it without a browser."""

import json
import os
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_lit import __version__
from mnist_lit.calibration import CalibratedNetwork, count_parameters
from mnist_lit.datasets.dataset import Fit
from mnist_lit.datasets.photographs import MIN_CONFIDENCE
from mnist_lit.reader.novelty import MAX_NOVELTY, NoveltyNetwork
from mnist_lit.reader.page.operations import describe_network
from mnist_lit.system.errors import UsageError

__all__ = ["COMPARED", "USE", "describe_page", "node_classifier", "to_html", "write_page"]

USE = "Open it in a browser."
COMPARED = 500
"""Test images that a page must classify as the checkpoint does: JavaScript takes some milliseconds for each."""

FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "template.html"
TAGS = ("script", "style")
HEAD, MODEL = '<meta charset="utf-8">\n', '<script id="model" type="application/json">{}</script>\n'
"""Lines of the template: the first of its head, and an empty model."""
CLASSIFY = """
const { readFileSync, writeFileSync } = require("node:fs");
const model = decode(JSON.parse(readFileSync("model.json", "utf8")));
const pixels = readFileSync("pixels");
const size = model.shape.reduce((a, b) => a * b);
const found = [];
for (let i = 0; i < pixels.length; i += size) {
  found.push(...run(model, pixels.subarray(i, i + size)).probabilities.data);
}
writeFileSync("probabilities", Float32Array.from(found));
"""
"""The script that Node.js runs after `network.js`, in a folder with a model and pixels."""


def to_html(
    model: CalibratedNetwork, example: Tensor, metadata: Mapping[str, str]
) -> tuple[bytes, Callable[[Tensor], Tensor] | None]:
    """Return the page of a network, and a function that classifies as the page does, or None without Node.js.

    Args:
        model: the network, in evaluation mode.
        example: two images, uint8 (2, C, H, W).
        metadata: metadata of the export, with its `dataset` and `kind`, and its `classes` and `settings` in JSON.

    Raises:
        UsageError: if pictures cannot be prepared as the training images were.
        ValueError: if the page cannot compute the network.
    """
    dataset, kind = metadata["dataset"], metadata["kind"]
    if kind == "drawings":
        raise UsageError(f"the checkpoint classifies {dataset}: a page reads digits or photographs")
    about = f"mnist-lit {__version__}, trained on {dataset}"
    fit = json.loads(metadata["settings"])["data"]["fit"]
    page = describe_page(model, example, json.loads(metadata["classes"]), about, kind, fit)
    return write_page(page).encode(), node_classifier(page)


def describe_page(
    model: CalibratedNetwork, example: Tensor, classes: Sequence[str], about: str, kind: str, fit: Fit = "crop"
) -> dict[str, Any]:
    """Return what `write_page` needs.

    Args:
        model: the network, in evaluation mode.
        example: two images, uint8 (2, C, H, W).
        classes: names of the classes.
        about: a line at the end of the page.
        kind: `digits`, if drawings and pictures are prepared as MNIST's digits, or `photographs`.
        fit: how photographs become squares.

    Raises:
        ValueError: if the page cannot compute the network.
    """
    calibration = model.uncalibrated or "these probabilities are calibrated on validation images"
    return {
        "kind": kind,
        "fit": fit,
        "classes": list(classes),
        "shape": list(example.shape[1:]),
        "unsure": MIN_CONFIDENCE,
        "calibration": f"{calibration}.".capitalize(),
        "about": f"{about}: {count_parameters(model.network):,} parameters",
        **describe_network(torch.export.export(model, (example,))),
        "novelty": _describe_novelty(example) if kind == "digits" else None,
    }


def _describe_novelty(example: Tensor) -> dict[str, Any]:
    network = nn.Sequential(NoveltyNetwork.load(), nn.Softmax(dim=1)).eval()
    described = describe_network(torch.export.export(network, (example,)))
    return {"shape": list(example.shape[1:]), "least": MAX_NOVELTY, **described}


def write_page(model: dict[str, Any]) -> str:
    """Return the page with a model. The page's policy allows its own scripts and style, and requests nothing.

    Args:
        model: the network, as `describe_network` returns it, and: `kind`, digits or photographs; `classes`, their
            names; `fit`, how photographs become squares, see `Fit`; `shape` of an image, (C, H, W); `unsure`, the
            probability below which an answer is; the texts `calibration` and `about`; and `novelty`, the network that
            tells digits from anything else, or None. Without a network, the page shows how it prepares drawings.

    Raises:
        ValueError: if the template does not have the lines that are filled in.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    page = re.sub(r'<script src="(\w+\.js)"></script>', _include, template)
    if (page.count(HEAD), page.count(MODEL), page.count("<script src")) != (1, 1, 0):
        raise ValueError(f"{TEMPLATE} must have the lines {HEAD!r}, {MODEL!r} and scripts like <script src=FILE.js>")
    scripts, styles = (" ".join(map(_hash, re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL))) for tag in TAGS)
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; script-src {scripts}; style-src {styles}"
    page = page.replace(HEAD, f'{HEAD}<meta http-equiv="Content-Security-Policy" content="{policy}">\n')
    # Any `<` might begin a tag. The names of classes are those of folders: any text.
    return page.replace(MODEL, MODEL.replace("{}", json.dumps(model, separators=(",", ":")).replace("<", r"\u003c")))


def _include(element: re.Match[str]) -> str:
    return f"<script>{(FOLDER / element[1]).read_text(encoding='utf-8')}</script>"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def node_classifier(model: dict[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """Return a function that classifies as the page does, or None if Node.js, which runs it, is not installed.

    Args:
        model: see `write_page`.

    Returns:
        from pixels uint8 (N, C, H, W) to probabilities float32 (N, K); it raises ValueError if Node.js fails.
    """
    node = shutil.which("node")
    if not node:
        return None
    content = json.dumps(model)
    script = (FOLDER / "network.js").read_text(encoding="utf-8") + CLASSIFY

    def classify_part(pixels: Tensor) -> Tensor:
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "model.json").write_text(content, encoding="utf-8")
            (folder / "classify.cjs").write_text(script, encoding="utf-8")
            (folder / "pixels").write_bytes(pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
            command = [node, "classify.cjs"]
            ended = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
            if ended.returncode:
                reason = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ValueError(f"{node} failed with status {ended.returncode}: {reason}")
            found = np.fromfile(folder / "probabilities", dtype="<f4")
        return torch.from_numpy(found.reshape(len(pixels), -1))

    def classify(pixels: Tensor) -> Tensor:
        with ThreadPoolExecutor() as threads:
            return torch.cat(list(threads.map(classify_part, pixels.chunk(os.cpu_count() or 1))))

    return classify
