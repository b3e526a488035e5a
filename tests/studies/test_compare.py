"""`compare` shows settings, results and a verdict from the validation images, of real runs."""

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHORT, Command, training_set_only
from PIL import Image

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.commands import describe_flags
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.studies.compare import FLAGS
from mnist_lit.studies.statistics import difference

A, B = Path("runs/a"), Path("runs/b")
NOTE = "note: for some, the best of several epochs was selected on these images"


@pytest.fixture(scope="session")
def two(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `runs` of two experiments with three seeds each."""
    from conftest import make_once, train

    def train_both(folder: Path) -> None:
        flags = [*SHORT, "--seeds=3", "--trainer.logger=false"]
        train(folder, data_dir, *flags, "--experiment=a", "--model.learning_rate=0.0001")
        shutil.rmtree(folder / "data")
        train(folder, data_dir, *flags, "--experiment=b", "--model.learning_rate=0.01")

    return make_once(tmp_path_factory, "compared", train_both) / "runs"


@pytest.fixture
def compared(command: Command, two: Path) -> Command:
    """`command` in a folder with the runs of both experiments."""
    shutil.copytree(two, "runs")
    return command


def accuracies(experiment: Path) -> dict[int, float]:
    runs = [Run(experiment / f"version_{number}") for number in range(3)]
    return {777 + i: run.results()["fit"]["best_val_accuracy"] for i, run in enumerate(runs)}


def change(run: Run, stage: str, **values: Any) -> None:
    results = run.results()
    run.record(**{stage: results[stage] | values})


def test_settings_table_and_verdict(compared: Command) -> None:
    with training_set_only():
        code, out, err = compared("compare", A, B, "--output=table.csv")
    assert (code, err) == (0, "")
    assert NOTE not in out
    lines = out.splitlines()
    assert lines[:2] == ["                     A       B", "model.learning_rate  0.0001  0.01"]
    found = difference(accuracies(A), accuracies(B))
    assert found.p < 0.05
    low, high = (100 * end for end in found.interval(0.95))
    assert f"B is better than A by {100 * found.mean:.2f} points on these images (95 %: {low:.2f} to {high:.2f})" in out
    assert "on other images than these 500, add ±" in out

    with Path("table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["runs/a", "runs/b"]
    for row, experiment in zip(rows, (A, B), strict=True):
        values = [*accuracies(experiment).values()]
        assert float(row["validation_accuracy"]) == pytest.approx(sum(values) / 3)
        assert float(row["validation_low"]) < min(values) < max(values) < float(row["validation_high"])
        assert (row["runs"], row["seeds"], row["parameters"]) == ("3", "777 778 779", "4266")
        assert (row["epochs"], row["images_per_epoch"]) == ("2.0", "2000")
        assert f"{float(row['validation_accuracy']):.2%} ± {float(row['validation_sd']):.2%}" in out
        for name in ("ensemble_validation_accuracy", "calibration_error"):
            assert f"{float(row[name]):.2%}" in out
    for name in ("table.png", "table_images.png"):
        assert f": {name}" in out
        with Image.open(name) as picture:
            assert picture.size > (200, 100)


def test_several_runs_are_an_ensemble_by_mean_probability_and_a_single_one_has_no_verdict(
    compared: Command,
) -> None:
    out = compared("compare", A, B / "version_0")[1]
    assert "A and B: no verdict, since B is a single run: train more with fit --seeds" in out
    header, *rows = out.split("\n\n")[1].splitlines()[:3]
    column = slice(header.index("ensemble, validation"), header.index("ensemble, validation") + 20)
    runs = [Checkpoint.read(path) for path in sorted(A.glob("version_*/checkpoints/best.ckpt"))]
    data = MNISTDataModule()
    data.setup("validate")
    pixels, labels = (torch.cat(parts)[:500] for parts in zip(*data.val_dataloader(), strict=True))
    found = torch.zeros(500, 10)
    for checkpoint in runs:
        classifier = DigitClassifier(**checkpoint.settings["model"])
        checkpoint.load_into(classifier)
        found += CalibratedNetwork(classifier.network, classifier.temperature).classify(pixels, 100) / 3
    accuracy = float((found.argmax(dim=1) == labels).double().mean())
    assert [row[column].strip() for row in rows] == [f"{accuracy:.2%}", ""], "a single run is no ensemble"


def test_recorded_and_recomputed_validation_are_the_same_images(compared: Command) -> None:
    """McNemar's test counts images: their difference is that of the recorded accuracies of 500 images."""
    first, second = A / "version_0", B / "version_0"
    code, out, err = compared("compare", first, second)
    assert (code, err) == (0, "")
    (verdict,) = (line for line in out.splitlines() if "McNemar" in line)
    only = [int(word) for word in verdict.replace(";", "").split() if word.isdecimal()]
    recorded = [Run(run).results()["fit"]["best_val_accuracy"] for run in (first, second)]
    assert only[1] - only[0] == round(500 * (recorded[1] - recorded[0]))
    assert "more seeds tell" in verdict


def test_three_recipes_are_corrected_for(compared: Command) -> None:
    out = compared("compare", A, B, A)[1]
    assert "A and C cannot be told apart with 3 seeds each: the difference is +0.00 points for each" in out
    assert "with Holm's correction" in out
    assert "98.3 %: " in out, "5 % divided by three"


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--data.val_size=0", "no verdict, since B had no validation"),
        ("--data.split_seed=1", "no verdict, since their validation images are not the same (data.split_seed)"),
        pytest.param(
            "--data.val_size=2000",
            "no verdict, since their validation images are not the same (data.val_size)",
            marks=pytest.mark.slow,
        ),
        ("--data.batch_size=50", "no verdict, since their validation images are not the same (data.batch_size)"),
    ],
)
def test_other_validation_images_have_no_verdict(compared: Command, flag: str, reason: str) -> None:
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_test_batches=0"]
    assert compared("fit", *SHORT, *short, "--experiment=c", flag)[0] == 0
    code, out, err = compared("compare", A / "version_0", "runs/c", "--output=table.csv")
    assert (code, err) == (0, "")
    assert reason in out
    assert "better" not in out
    assert Path("table.csv").is_file()


def test_runs_of_one_experiment_must_be_of_one_recipe(compared: Command) -> None:
    assert compared("fit", *SHORT, "--experiment=a", "--model.learning_rate=0.02")[0] == 0
    code, _, err = compared("compare", A, B)
    assert code == 1
    assert err == (
        f"error: {A} has runs of more than one recipe: model.learning_rate is 0.0001 in version_0 and 0.02 in "
        "version_3. Give single runs, or the seeds_<n>.json of fit --seeds; and another --experiment to the next "
        "recipe\n"
    )
    code, out, err = compared("compare", A / "seeds_0.json", B)
    assert (code, err) == (0, "")
    assert "B is better than A" in out


def test_a_repeated_seed_counts_once(compared: Command) -> None:
    expected = compared("compare", A, B)[1]
    shutil.copytree(A / "version_1", A / "version_3")
    line, _, rest = compared("compare", A, B)[1].partition("\n")
    assert line == f"{A / 'version_3'} repeats the seed of {A / 'version_1'}, and does not count"
    assert rest == expected


def test_unfinished_runs_do_not_count(compared: Command) -> None:
    (A / "version_2" / "results.json").unlink()
    code, out, _ = compared("compare", A, B)
    assert code == 0
    assert [line.split()[2] for line in out.splitlines() if line.startswith(("A  ", "B  "))] == ["2", "3"]
    for number in (0, 1):
        (A / f"version_{number}" / "results.json").unlink()
    code, _, err = compared("compare", A, B)
    assert (code, err) == (1, f"error: no finished run in {A}: give the folder of an experiment or of a run\n")


def test_a_selection_of_epochs_by_some_is_noted(compared: Command) -> None:
    for number in range(3):
        config = Run(B / f"version_{number}").config
        text = config.read_text(encoding="utf-8").replace("select: best_epoch", "select: last_epoch")
        config.write_text(text, encoding="utf-8")
    assert NOTE in compared("compare", A, B)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/a"], "compare: give from two to 26 folders"),
        ([], "compare: give from two to 26 folders"),
        (["runs/a", "runs/b", "--output=table.txt"], "--output: table.txt must end in .csv"),
        (["runs/a", "runs/b", "--outptu=x.csv"], "no flag --outptu: did you mean --output?"),
        (["runs/a", "runs/b", "--model.dropout=0.1"], "no flag --model.dropout"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], message: str) -> None:
    code, _, err = command("compare", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_damaged_run_is_named(compared: Command) -> None:
    (A / "version_1" / "checkpoints" / "best.ckpt").write_bytes(b"?")
    code, _, err = compared("compare", A, B)
    assert (code, err.count("\n")) == (1, 1)
    assert str(A / "version_1" / "checkpoints" / "best.ckpt") in err


@pytest.mark.parametrize("results", ['{"fit": {}}', '{"fit": {"best_val_accuracy": "x"}}', "{"])
def test_damaged_results_are_named(compared: Command, results: str) -> None:
    path = A / "version_1" / "results.json"
    path.write_text(results, encoding="utf-8")
    code, _, err = compared("compare", A, B)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: {path} ")


def test_help_has_the_defaults_of_all_flags() -> None:
    found = dict(re.findall(r"^  --(\S+).*?(?:\((\w+)\))?$", describe_flags("compare"), re.MULTILINE))
    assert found == FLAGS
