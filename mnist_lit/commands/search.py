"""Search hyperparameters with Optuna: every trial is an ordinary run, judged on validation images only."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lit.commands.fit import train
from mnist_lit.commands.resume import Start
from mnist_lit.commands.settings import build_parser, parse, replace_values
from mnist_lit.datasets.sampling import derive_seed
from mnist_lit.runs.folders import ROOT, Run
from mnist_lit.system.errors import UsageError, suggest
from mnist_lit.system.files import write_atomically

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

__all__ = ["search"]

SHOWN = 10  # trials in the table
RANGE = {"low", "high", "log", "step"}


class Prune(Callback):
    """End a trial that is worse than the median of the others after as many epochs.

    Args:
        trial: that the run is of.
    """

    def __init__(self, trial: "Trial") -> None:
        self.trial, self.pruned = trial, False

    def on_train_epoch_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Report the validation accuracy; the run ends as if this had been its last epoch."""
        if "val/accuracy" not in trainer.callback_metrics:  # validation may be rarer
            return
        self.trial.report(float(trainer.callback_metrics["val/accuracy"]), trainer.current_epoch)
        self.pruned = self.trial.should_prune()
        trainer.should_stop |= self.pruned


def search(argv: Sequence[str]) -> None:
    """Run trials until the study has as many as asked for, tell the best ones, and write `best.yaml`.

    The study is a journal beside its runs: a search that was stopped goes on by the same command, and several
    processes, started alike, share it.

    Raises:
        UsageError: if a flag or the space is wrong, or Optuna is not installed.
        ValueError: if no trial came to its end.
    """
    config = parse(build_parser("search"), argv)
    space, trials = config.pop("space"), config.pop("trials")
    _check(config, space)
    study = _open(ROOT / config.experiment)
    while (finished := sum(trial.state.is_finished() for trial in study.trials)) < trials:
        trial = study.ask()
        study.sampler = sampler_of_trial(config.seed, trial, space)
        values = {name: _suggest(trial, name, choice) for name, choice in space.items()}
        print(f"trial {finished + 1} of {trials}: {_told(values)}")
        _run(study, trial, config, values)
    _tell(study, ROOT / config.experiment)


def _check(config: Namespace, space: dict[str, Any]) -> None:
    if not space:
        raise UsageError("no --space to search: see configs/search.yaml")
    if config.data.val_size == 0 or config.trainer.limit_val_batches == 0:
        raise UsageError("a search needs a validation: --data.val_size and --trainer.limit_val_batches must not be 0")
    if config.trainer.fast_dev_run:
        raise UsageError("--trainer.fast_dev_run is for fit: a search compares whole runs")
    if str(config.trainer.devices) != "1" or config.trainer.num_nodes > 1:
        raise UsageError("a trial runs in one process: start the search several times to share it")
    parser = build_parser("fit")
    for name, choice in space.items():
        if name not in config or isinstance(config[name], Namespace):
            raise UsageError(f"--space: no setting {name}{suggest(name, config.keys())}")
        try:
            for value in _examples(name, choice):
                replace_values(parser, config, {name: value})
        except UsageError as error:
            raise UsageError(f"--space: {str(error).removeprefix('--')}") from error


def _examples(name: str, choice: Any) -> list[Any]:
    """Return the values of a list, or the ends of a range."""
    if isinstance(choice, list) and choice:
        return choice
    if not isinstance(choice, dict) or not {"low", "high"} <= choice.keys() <= RANGE:
        raise UsageError(f"{name} needs a list of choices, or low and high (and log or step)")
    if name == "seed":
        try:
            return [_seeds(choice)[0], choice["high"]]
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError("seed needs a list, or whole numbers: low, and a high that is not less") from error
    return [choice["low"], choice["high"]]


def _open(folder: Path) -> "Study":
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UsageError(f"a search needs {error.name}: pip install -e '.[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.create_study(storage=storage, study_name=folder.name, direction="maximize", load_if_exists=True)


def sampler_of_trial(seed: int, trial: "Trial", space: dict[str, Any]) -> "BaseSampler":
    """Return what proposes a trial's values: by chance that depends on the search's seed and the trial's number alone.

    So the same search proposes the same values, and processes that share it propose different ones. A `seed` in the
    space is nothing to be learnt: the trials take its values one after another, none twice before all have been taken.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import PartialFixedSampler, TPESampler

    sampler = TPESampler(seed=derive_seed(seed, trial.number))
    if "seed" not in space:
        return sampler
    seeds = _seeds(space["seed"])
    at = trial.number % len(seeds)
    taken = [other.params.get("seed") for other in trial.study.trials if other.state.is_finished()]
    free = next((one for one in chain(seeds[at:], seeds[:at]) if one not in taken), seeds[at])
    with catch_warnings(action="ignore", category=ExperimentalWarning):
        return PartialFixedSampler({"seed": free}, sampler)


def _seeds(choice: Any) -> Sequence[Any]:
    """Return all values of the `seed` in a space, as the study has them."""
    if isinstance(choice, list):
        return [json.dumps(one) for one in choice]
    return range(choice["low"], choice["high"] + 1, choice.get("step", 1))


def _suggest(trial: "Trial", name: str, choice: Any) -> Any:
    """Return a value: one of a list, or one of a range, which is of whole numbers if its bounds are.

    Raises:
        UsageError: if Optuna cannot use the range, or the study has had other choices so far.
    """
    try:
        if isinstance(choice, list):  # as text: a choice may be a list itself
            return json.loads(str(trial.suggest_categorical(name, [json.dumps(one) for one in choice])))
        whole = isinstance(choice["low"], int) and isinstance(choice["high"], int)
        return (trial.suggest_int if whole else trial.suggest_float)(name, **choice)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--space: {name}: {error}") from error


def _run(study: "Study", trial: "Trial", config: Namespace, values: dict[str, Any]) -> None:
    """Train one trial, and tell the study what came of it. One that a signal ends is left to be forgotten."""
    from optuna.trial import TrialState

    parser, prune = build_parser("fit"), Prune(trial)
    try:
        run = train(Start(parser, replace_values(parser, config, values)), [prune], tested=False)
        if (score := run.results()["fit"]["best_val_accuracy"]) is None:
            raise ValueError("it ended before its first validation")  # noqa: TRY301  # told as any other failure
    except Exception as error:  # noqa: BLE001  # whatever it is, the study goes on
        print(f"the trial failed: {' '.join(str(error).split()) or type(error).__name__}\n")
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr("run", run.folder.name)
    if prune.pruned:
        print("pruned: others were better by then\n")
        study.tell(trial, state=TrialState.PRUNED)
    else:
        print()
        study.tell(trial, score)


def _tell(study: "Study", folder: Path) -> None:
    """Print the best trials, and write the best one's settings to `best.yaml`."""
    states = [trial.state.name.lower() for trial in study.trials if trial.state.is_finished()]
    print(", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not complete:
        raise ValueError("no trial came to its end: there is nothing to choose from")
    best = sorted(complete, key=_accuracy, reverse=True)
    print("val/accuracy  run")
    for trial in best[:SHOWN]:
        values = {name: json.loads(v) if isinstance(v, str) else v for name, v in trial.params.items()}
        print(f"{_accuracy(trial):12.4f}  {trial.user_attrs['run']:<12} {_told(values)}")
    parser = build_parser("fit")
    config = parse(parser, [f"--config={Run(folder / best[0].user_attrs['run']).config}"])
    config.experiment = f"{folder.name}_best"
    write_atomically(target := folder / "best.yaml", parser.dump(config, skip_unset=False).encode())
    print(f"\nthe best: {target}; to train it, python train.py fit --config {target}")


def _accuracy(trial: "FrozenTrial") -> float:
    return trial.value or 0.0


def _told(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
