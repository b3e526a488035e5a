"""`compare` shows settings, results and a verdict from the validation images, of real runs."""

import csv
import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import SHORT, Command, training_set_only
from PIL import Image

from mnist_lit.commands import describe_flags
from mnist_lit.runs.folders import Run
from mnist_lit.studies.compare import FLAGS
from mnist_lit.studies.recipe import Answers
from mnist_lit.studies.statistics import LEVEL, difference

A, B = Path("runs/a"), Path("runs/b")
NOTE = "note: the best epoch on these images was selected"
NO_VERDICT = "A and B: no verdict, since"


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


def test_settings_table_and_verdict(compared: Command) -> None:
    with training_set_only():
        code, out, err = compared("compare", A, B, "--output=table.csv")
    assert (code, err) == (0, "")
    assert NOTE not in out
    printed = {line[:28].strip(): line[28:].split() for line in out.partition("\n\n")[0].splitlines()}
    assert printed[""] == ["A", "B"]
    assert printed["model.learning_rate"] == ["0.0001", "0.01"]
    found = difference(accuracies(A).values(), accuracies(B).values())
    assert found.p < LEVEL
    assert f"\n{found.describe('A', 'B')}; for other images too, 95 %: ± " in out
    assert f"(seeds ± {100 * found.half_width(0.05):.2f}, images ± " in out

    with Path("table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == printed["name"] == ["runs/a", "runs/b"]
    for i, experiment in enumerate((A, B)):
        row, values = rows[i], [*accuracies(experiment).values()]
        assert float(row["validation_accuracy"]) == pytest.approx(sum(values) / 3)
        assert float(row["validation_low"]) < min(values) < max(values) < float(row["validation_high"])
        assert (row["runs"], row["seeds"], row["parameters"]) == ("3", "777 778 779", "4266")
        assert (row["epochs"], row["images_per_epoch"], row["candidates"]) == ("2.0", "2000", "2")
        for name in (
            "validation_accuracy",
            "validation_sd",
            "test_accuracy",
            "test_sd",
            "ensemble_validation_accuracy",
        ):
            assert printed[name.replace("_", " ")][i] == f"{float(row[name]):.2%}"
    assert out.endswith("\nwritten: table.csv, table.png, table_images.png\n")
    for path in ("table.png", "table_images.png"):
        with Image.open(path) as picture:
            assert picture.size > (200, 100)


def test_several_runs_answer_together_by_their_mean_probability() -> None:
    probabilities = torch.tensor([[[0.9, 0.1], [0.4, 0.6]], [[0.3, 0.7], [0.8, 0.2]]])  # (runs, images, classes)
    answers = Answers(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), probabilities, ["no", "yes"])
    assert answers.correct.tolist() == [True, False]
    assert answers.right.tolist() == [[True, True], [False, False]]


def test_single_runs_are_compared_by_mcnemar_and_only_with_each_other(compared: Command) -> None:
    first, second = A / "version_0", B / "version_0"
    code, out, err = compared("compare", first, second)
    assert (code, err) == (0, "")
    (verdict,) = (line for line in out.splitlines() if "McNemar" in line)
    only = [int(word) for word in verdict.replace(";", "").split() if word.isdecimal()]
    assert only[1] - only[0] == round(500 * (accuracies(B)[777] - accuracies(A)[777]))
    assert f"{NO_VERDICT} B is a single run" in compared("compare", A, second)[1]


def test_three_recipes_are_corrected_for(compared: Command) -> None:
    out = compared("compare", A, B, A)[1]
    assert "A and C cannot be told apart with 3 and 3 seeds (C minus A: +0.00 points, 97.5 %: ± " in out
    assert "Holm's correction" in out
    assert "99.2 %: " in out, "2.5 % divided by three"


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--data.val_size=0", "no verdict about runs/c, which had no validation"),
        ("--data.split_seed=1", f"{NO_VERDICT} their validation images are not the same"),
        ("--data.batch_size=50", f"{NO_VERDICT} their validation images are not the same"),
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
    reason = f"{A} has runs of several recipes, which differ in model.learning_rate"
    assert (code, err) == (1, f"error: {reason}: give single runs, or the seeds_<n>.json of fit --seeds\n")
    code, out, err = compared("compare", A / "seeds_0.json", B)
    assert (code, err) == (0, "")
    assert "B is better than A" in out


def test_a_repeated_seed_counts_once(compared: Command) -> None:
    expected = compared("compare", A, B)[1]
    shutil.copytree(A / "version_1", A / "version_3")
    line, _, rest = compared("compare", A, B)[1].partition("\n")
    assert line == f"{A} has several runs of the same seed, of which the first one counts"
    assert rest == expected


def test_a_selection_of_epochs_by_some_is_noted(compared: Command) -> None:
    for number in range(3):
        config = Run(B / f"version_{number}").config
        text = config.read_text(encoding="utf-8").replace("select: best_epoch", "select: last_epoch")
        config.write_text(text, encoding="utf-8")
    assert f"{NOTE}, which favours the recipe with more epochs (A 2, B 1): " in compared("compare", A, B)[1]


def test_failed_runs_are_counted(compared: Command) -> None:
    """A recipe that diverges now and then is not as good as its other runs."""
    shutil.copytree(B / "version_0", B / "version_3")
    (B / "version_3/results.json").unlink()
    Run(B / "version_3").fail("the loss is nan")
    out = compared("compare", A, B)[1]
    assert re.search(r"^failed +0 +1$", out, re.MULTILINE)
    assert "note: 1 of 4 runs of B failed, and are in none of these figures\n" in out
    config = B / "version_3/config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("learning_rate: 0.01", "learning_rate: 10.0"), encoding="utf-8")
    assert "failed, and are" not in compared("compare", A, B)[1], "it is of another recipe"


def test_runs_that_were_made_by_something_else_are_told(compared: Command) -> None:
    assert "the runs differ" not in compared("compare", A, B)[1]
    path = B / "version_1/results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["made_by"]["threads"]
    path.write_text(json.dumps(results | {"made_by": results["made_by"] | {"torch": "0.4.1"}}), encoding="utf-8")
    assert f"note: the runs differ in torch: 0.4.1, {version('torch')}\n" in compared("compare", A, B)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/a"], "compare: give from two to 26 folders"),
        (["runs/a", "runs/b", "--output=table.txt"], "--output: table.txt must end in .csv"),
        (["runs/a", "runs/b", "--relevant=0"], "--relevant: expected a difference in percentage points, such as 0.1"),
        (["runs/a", "runs/b", "--relevant=nan"], "--relevant: expected a difference in percentage points, such as"),
        (["runs/a", "runs/b", "--outptu=x.csv"], "no flag --outptu: did you mean --output?"),
        (["runs/a", "runs/b", "--model.dropout=0.1"], "no flag --model.dropout"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], message: str) -> None:
    err = command.refuse("compare", *arguments)
    assert message in err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checkpoints/best.ckpt", "?"),
        ("results.json", '{"fit": {}}'),
        ("results.json", '{"fit": {"best_val_accuracy": "x"}}'),
        ("results.json", "{"),
    ],
)
def test_a_damaged_file_is_named(compared: Command, name: str, content: str) -> None:
    path = A / "version_1" / name
    path.write_text(content, encoding="utf-8")
    code, _, err = compared("compare", A, B)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: {path} ")


def test_help_has_the_defaults_of_all_flags() -> None:
    found = dict(re.findall(r"^  --(\S+).*?(?:\(([\w.]+)\))?$", describe_flags("compare"), re.MULTILINE))
    assert found == FLAGS
