"""A folder of images is trained on, resumed, tested, exported and predicted as MNIST is, with its class names."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RUN, TRAIN, Command, make_once, read_rows, train
from PIL import Image
from test_other_images import check_other_commands

from mnist_lit.commands import has_room
from mnist_lit.runs.folders import Run

FLAGS = [
    "--data.dataset=flags",
    "--data.image_size=16",
    "--data.batch_size=10",
    "--data.flip=true",
    "--data.crop=2",
    "--model.channels=[4,8]",
    "--model.learning_rate=0.01",
    "--model.dropout=0.1",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=8",
]
CLASSES = ["France", "Germany", "Estonia"]
BEST, LAST = RUN.checkpoints / "best.ckpt", RUN.checkpoints / "last.ckpt"


def draw_flag(name: str, rng: np.random.Generator) -> Image.Image:
    """Return a picture of three stripes, 48×32, with noise."""
    blue, white, red, black, gold = (0, 0, 200), (255, 255, 255), (200, 0, 0), (0, 0, 0), (220, 180, 0)
    stripes = {"France": (blue, white, red), "Germany": (black, red, gold), "Estonia": (blue, black, white)}[name]
    pixels = np.repeat(np.array(stripes), 16, axis=0)[None].repeat(32, axis=0)  # (32, 48, 3): vertical
    if name != "France":
        pixels = np.repeat(np.array(stripes), [11, 11, 10], axis=0)[:, None].repeat(48, axis=1)
    return Image.fromarray((pixels + rng.integers(-40, 40, pixels.shape)).clip(0, 255).astype(np.uint8))


def draw_flags(folder: Path, number: int = 30, seed: int = 0) -> None:
    """Save a number of pictures of each flag in `folder`/CLASS."""
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for index in range(number):
            draw_flag(name, rng).save(folder / name / f"{index}.png")


@pytest.fixture
def flags(command: Command) -> Command:
    """`command` in a folder with 90 pictures in `flags/CLASS`."""
    draw_flags(Path("flags"))
    return command


@pytest.fixture(scope="session")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with these pictures, and the run of an epoch on them."""

    def make(folder: Path) -> None:
        draw_flags(folder / "flags")
        train(folder, data_dir, *FLAGS, "--trainer.max_epochs=1")

    return make_once(tmp_path_factory, "flags", make)


@pytest.fixture
def trained(command: Command, finished: Path) -> Command:
    """`command` in a folder with the same pictures and run."""
    for name in ("flags", "runs"):
        shutil.copytree(finished / name, name)
    return command


def test_every_command_works_with_a_folder(flags: Command) -> None:
    out = flags.succeed("fit", *FLAGS)
    assert "data     flags: 73 images to train on, 8 to validate, 9 to test\n" in out
    square = "the middle square of each at 16×16 pixels (--data.fit, --data.image_size)"
    assert f"\n         {square}\nclasses  Estonia, France, Germany\nnetwork  " in out
    assert "(3, 16, 16) → (4, 16, 16)" in out
    assert "predict --images PHOTO.jpg\n" in out
    assert RUN.results()["test"]["total"] == 9
    assert RUN.results()["test"]["accuracy"] > 0.8
    assert "val_size: 8\n" in RUN.config.read_text(encoding="utf-8")
    table = check_other_commands(flags, 9, (3, 16, 16), "class", "p_Estonia", "p_France", "p_Germany")
    assert {row["class"] for row in table} <= set(CLASSES)
    assert all(Path(row["image"]).is_file() for row in table)
    correct = sum(Path(row["image"]).parent.name == row["class"] for row in table)
    assert correct == RUN.results()["test"]["correct"]


def test_an_exported_file_has_no_path_of_this_machine(trained: Command) -> None:
    assert trained("export", "--data.dataset", Path("flags").absolute(), "--output=mine.pt2")[0] == 0
    extra = {"metadata.json": ""}
    torch.export.load("mine.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["dataset"] == "flags"
    assert str(Path.cwd()) not in extra["metadata.json"]


def test_a_run_is_resumed_with_its_folder_moved(trained: Command) -> None:
    Path("flags").rename("banners")
    resume = ["fit", "--ckpt_path=last", "--data.dataset=banners", "--trainer.max_epochs=2"]
    assert trained(*resume)[::2] == (0, "")
    assert "dataset: banners\n" in RUN.config.read_text(encoding="utf-8")
    assert RUN.results()["fit"]["epochs"] == 2
    shutil.copytree("banners", "fewer")
    Path("fewer/France/0.png").unlink()
    err = trained.refuse("fit", "--ckpt_path=last", "--data.dataset=fewer", "--trainer.max_epochs=3", code=1)
    assert err.startswith("error: fewer has other images than ")


def test_pictures_are_classified_without_the_folder(flags: Command) -> None:
    assert flags("fit", *FLAGS)[0] == 0
    shutil.rmtree("flags")
    shutil.rmtree("data")
    rng = np.random.default_rng(1)
    Path("mine").mkdir()
    for name in CLASSES:
        draw_flag(name, rng).resize((480, 320)).save(f"mine/{name}.jpg")
    out = flags.succeed("predict", "--images", "mine", "--save_seen=seen")
    table = read_rows(RUN.folder / "predictions.csv")
    assert [row["class"] for row in table] == sorted(CLASSES)
    for row in table:
        assert f"{row['image']}: {row['class']}, " in out
        assert float(row[f"p_{row['class']}"]) == float(row["probability"])
    with Image.open("seen/00001_France.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
    err = flags.refuse("test")
    assert err.endswith(f"CIFAR10 or a folder of images, got flags: {Path('flags').absolute()} does not exist\n")


@pytest.mark.parametrize("change", ["added", "removed", "other class"])
def test_a_run_of_images_that_have_changed_is_refused_in_one_line(trained: Command, change: str) -> None:
    """Other images may be held out after a change: a test image may have been trained on."""
    results = RUN.results()
    france = Path("flags/France/0.png")
    if change == "added":
        shutil.copy("flags/Germany/0.png", "flags/France/new.png")
    elif change == "removed":
        france.unlink()
    else:
        france.rename("flags/Germany/new.png")
    resume = ["fit", "--ckpt_path=last", "--trainer.max_epochs=2"]
    for argv in (["validate"], ["test"], ["test", "--data.dataset=./flags"], ["predict"], ["export"], resume):
        code, _, err = trained(*argv)
        checkpoint = LAST if argv[0] == "fit" else BEST
        folder = "./flags" if len(argv) == 2 else "flags"
        start = f"error: the images in {folder} have changed since the training of {checkpoint}: undo the change, or "
        assert (code, err) == (1, f"{start}start a new run\n"), argv
    assert RUN.results() == results


def test_a_new_run_says_that_its_initial_weights_may_know_the_images_to_test(trained: Command) -> None:
    note = "flags has changed since that training, which may have seen images of validation or test\n"
    initial = ["--init_from", str(BEST), "--trainer.max_epochs=1"]
    assert note not in trained("fit", *FLAGS, *initial)[1]
    shutil.copy("flags/Germany/0.png", "flags/France/new.png")
    out = trained.succeed("fit", *FLAGS, *initial)
    assert note in out


def test_a_folder_is_the_same_by_any_path_and_another_one_needs_the_same_classes(trained: Command) -> None:
    assert "not recorded" not in trained("test", "--data.dataset", Path("flags").absolute())[1]
    Path("flags").rename("others")
    out = trained.succeed("test", "--data.dataset=others")
    assert "not recorded" not in out, "they are the same images"
    shutil.rmtree("others")
    draw_flags(Path("others"), 10, seed=100)
    out = trained.succeed("test", "--data.dataset=others")
    assert f"not recorded: {RUN.folder} records tests with flags only\n" in out
    Path("others/France").rename("others/Netherlands")
    code, _, err = trained("test", "--data.dataset=others")
    assert (code, err) == (2, f"error: others has a class Germany where {BEST} has France\n")


def test_a_checkpoint_of_somebody_else_does_not_choose_a_folder(trained: Command) -> None:
    shutil.copy(BEST, "theirs.ckpt")
    code, _, err = trained("test", "--ckpt_path=theirs.ckpt")
    expected = (
        "theirs.ckpt was trained on a folder of images: give its path, or that of another one, with --data.dataset"
    )
    assert (code, err) == (2, f"error: {expected}\n")
    assert trained("test", "--ckpt_path=theirs.ckpt", "--data.dataset=flags")[::2] == (0, "")


def test_checkpoint_of_another_data_set_is_tested_with_the_validation_size_of_the_given_one(flags: Command) -> None:
    assert flags("fit", *FLAGS, "--data.val_size=40", "--data.batch_size=30", "--trainer.max_epochs=1")[0] == 0
    draw_flags(Path("few"), 10, seed=100)
    assert flags("test", "--data.dataset=few")[::2] == (0, "")


PREDICT = ["predict", "--images", "flags/France/0.png"]
PREPARED = "pictures are prepared as in the training: leave this flag out"
TRAINED_ON = "--data.split_seed: leave it at 0, or training images would be validated.*"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "--data.dataset=flags"], "--data.batch_size: 100 is more than the 73 images to train on"),
        (
            ["fit", *FLAGS, "--data.mirrors=[file:///a]"],
            "mirrors are for data sets that are downloaded, flags is a folder",
        ),
        (
            ["fit", "--data.image_size=28"],
            "image_size is for folders of images: those of MNIST have a fixed size, leave it out",
        ),
        (["fit", "--data.fit=pad"], "fit is for folders of images: those of MNIST are square, leave it out"),
        (["fit", "--ckpt_path=last", "--data.dataset=MNIST"], "--data.dataset cannot change when a run is resumed.*"),
        (["validate", "--data.dataset=./flags", "--data.split_seed=1"], TRAINED_ON),
        ([*PREDICT, "--data.dataset=CIFAR10"], f"--data.dataset: {PREPARED}"),
        ([*PREDICT, "--data.image_size=32"], f"--data.image_size: {PREPARED}"),
        ([*PREDICT, "--data.fit=pad"], f"--data.fit: {PREPARED}"),
        (["test", "--data.fit=pad"], "--data.fit: images are prepared as in the training: leave this flag out"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_a_usage_error_before_there_is_a_run(
    trained: Command, argv: list[str], message: str
) -> None:
    err = trained.refuse(*argv)
    assert re.fullmatch(f"error: {message}\n", err)
    assert list(Path("runs").glob("*/*")) == [RUN.folder]


def test_pad_keeps_all_of_each_image(flags: Command) -> None:
    out = flags.succeed("fit", *FLAGS, "--data.fit=pad", "--trainer.max_epochs=1")
    assert "all of each, with black bars, at 16×16 pixels" in out
    Image.new("RGB", (40, 20), (255, 255, 255)).save("white.png")
    assert flags("predict", "--images", "white.png", "--save_seen=seen")[::2] == (0, "")
    with Image.open("seen/00000_white.png") as image:
        column = np.asarray(image)[:, 8, 0]
    assert column[[0, 1, 2, -3, -2, -1]].max() == 0
    assert column[5:11].min() == 255
    assert flags("test")[0] == 0
    if has_room("reader"):
        assert flags("export", "--output=page.html")[::2] == (0, "")
        assert '"fit":"pad"' in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_processes_train_on_a_folder_as_one_does(flags: Command) -> None:
    assert flags("fit", *FLAGS, "--trainer.max_epochs=1", "--experiment=one")[0] == 0
    ddp = ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.max_epochs=1"]
    ended = subprocess.run([sys.executable, TRAIN, "fit", *FLAGS, *ddp], capture_output=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, b"")
    one, two = (Run(Path(f"runs/{name}/version_0")).results() for name in ("one", "baseline"))
    assert one["fit"]["epochs"] == two["fit"]["epochs"] == 1
    assert one["test"]["total"] == two["test"]["total"] == 9
