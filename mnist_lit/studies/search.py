"""Search hyperparameters with Optuna: each trial is a run, and its objective value is the validation accuracy."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from warnings import catch_warnings

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lit.commands.fit import Start, train
from mnist_lit.commands.flags import build_data, build_parser, parse, replace_values
from mnist_lit.datasets.sampling import derive_seed
from mnist_lit.runs.folders import ROOT, Run
from mnist_lit.studies.seeds import require_complete_runs
from mnist_lit.system.errors import UsageError, suggest
from mnist_lit.system.files import write_atomically
from mnist_lit.system.program import PROGRAM, install_hint
from mnist_lit.system.signals import Stopped

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from mnist_lit.training.checkpointing import EpochCheckpoint

__all__ = ["search"]

MAX_ROWS = 10  # of the table of trials
MAX_START = timedelta(hours=1)
"""Time after which a trial without a run is that of a process that was killed."""
RANGE_KEYS = {"low", "high", "log", "step"}


class Prune(Callback):
    """Stop the training of a trial that Optuna prunes: it is worse than the median at the same epoch.

    Args:
        trial: the trial that this run belongs to.
    """

    def __init__(self, trial: "Trial") -> None:
        self.trial, self.pruned = trial, False

    def on_train_epoch_end(self, trainer: Trainer, _module: LightningModule) -> None:
        """Report the validation accuracy. If the trial is pruned, the run ends as if this was its last epoch."""
        if cast("EpochCheckpoint", trainer.checkpoint_callback).validated_step != trainer.global_step:
            return
        self.trial.report(float(trainer.callback_metrics["val/accuracy"]), trainer.current_epoch)
        self.pruned = self.trial.should_prune()
        trainer.should_stop |= self.pruned


def search(argv: Sequence[str]) -> None:
    """Run trials until the study has `--trials` of them, print the best ones, and write `best.yaml`.

    The study is stored in a journal file beside its runs. The same command resumes a study that was stopped; in
    several terminals, it runs trials of the same study side by side.

    Raises:
        UsageError: if a flag or the search space is wrong, or Optuna is not installed.
        ValueError: if no trial is complete.
    """
    config = parse(build_parser("search"), argv)
    space, trials = (config.pop(name) for name in ("space", "trials"))
    _check_config(config, space)
    study = _open_study(folder := ROOT / config.experiment, space)
    _fail_killed_trials(study, folder)
    while (begun := len(study.trials)) < trials:
        trial = study.ask()
        try:
            study.sampler = build_sampler(config.seed, trial, space)
            values = {name: _suggest(trial, name, domain) for name, domain in space.items()}
            print(f"trial {begun + 1} of {trials}: {_format_values(values)}")
            _run_trial(study, trial, config, values)
        except BaseException:
            _fail(study, trial.number)
            raise
    _report(study, folder)


def _fail_killed_trials(study: "Study", folder: Path) -> None:
    """Fail the trials of processes that were killed: the run that such a trial has stored is not locked.

    A trial without a run may be that of a process that still reads its images.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if name := trial.user_attrs.get("run"):
            run = Run(folder / name)
            killed = not run.is_locked() and "fit" not in run.results()  # a finished one is about to be reported
        else:
            killed = not trial.datetime_start or datetime.now() - trial.datetime_start > MAX_START  # noqa: DTZ005  # Optuna's
        if killed:
            _fail(study, trial.number)


def _fail(study: "Study", number: int) -> None:
    from optuna.trial import TrialState

    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _check_config(config: Namespace, space: dict[str, Any]) -> None:
    if not space:
        raise UsageError("--trials requires --space, or --config search")
    if config.data.val_size == 0 or config.trainer.limit_val_batches == 0:
        raise UsageError("a search needs a validation: --data.val_size and --trainer.limit_val_batches must not be 0")
    if config.trainer.fast_dev_run:
        raise UsageError("--trainer.fast_dev_run is for fit: a search compares complete runs")
    require_complete_runs(config, "search")
    build_data(config.data)
    parser = build_parser("fit")
    for name, domain in space.items():
        if name not in config or isinstance(config[name], Namespace):
            raise UsageError(f"--space: no setting {name}{suggest(name, config.keys())}")
        try:
            for value in _choices_or_bounds(name, domain):
                changed = replace_values(parser, config, {name: value})
                if name == "data.dataset":
                    build_data(changed.data)
        except UsageError as error:
            raise UsageError(f"--space: {str(error).removeprefix('--')}") from error


def _choices_or_bounds(name: str, domain: Any) -> list[Any]:
    """Return all values of a list, or the first and last one of a range."""
    if isinstance(domain, list) and domain:
        return domain
    if not isinstance(domain, dict) or not {"low", "high"} <= domain.keys() <= RANGE_KEYS:
        raise UsageError(f"{name} needs a list of choices, or low and high (and log or step)")
    if name == "seed":
        try:
            return [_seed_values(domain)[0], domain["high"]]
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError("seed needs a list of choices, or integers low <= high") from error
    return [domain["low"], domain["high"]]


def _open_study(folder: Path, space: dict[str, Any]) -> "Study":
    """Return the study in a folder.

    Raises:
        UsageError: if Optuna is not installed, or refuses a range.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UsageError(f"a search needs {error.name}: {install_hint('search')}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    example = optuna.create_study().ask()  # of a study in memory: a range that is refused leaves no trial
    for name, domain in space.items():
        _suggest(example, name, domain)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.create_study(storage=storage, study_name=folder.name, direction="maximize", load_if_exists=True)


def build_sampler(seed: int, trial: "Trial", space: dict[str, Any]) -> "BaseSampler":
    """Return the sampler of a trial, seeded with the seed of the search and the number of the trial.

    So the same search samples the same values, and processes that share a study sample different ones. A `seed` in the
    search space is not modelled: the trials take its values in turn, each once before any is repeated.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import PartialFixedSampler, TPESampler

    sampler = TPESampler(seed=derive_seed(seed, trial.number))
    if "seed" not in space:
        return sampler
    seeds = _seed_values(space["seed"])
    start = trial.number % len(seeds)
    used = [other.params.get("seed") for other in trial.study.trials if other.state.is_finished()]
    unused = next((value for value in chain(seeds[start:], seeds[:start]) if value not in used), seeds[start])
    with catch_warnings(action="ignore", category=ExperimentalWarning):
        return PartialFixedSampler({"seed": unused}, sampler)


def _seed_values(domain: Any) -> Sequence[Any]:
    """Return all values of a `seed` in the search space, categorical ones as JSON (see `_suggest`)."""
    if isinstance(domain, list):
        return [json.dumps(value) for value in domain]
    return range(domain["low"], domain["high"] + 1, domain.get("step", 1))


def _suggest(trial: "Trial", name: str, domain: Any) -> Any:
    """Return a sampled value of a list (categorical) or of a range, of integers if both bounds are integers.

    Raises:
        UsageError: if Optuna refuses the range, or if the study has other choices.
    """
    try:
        if isinstance(domain, list):  # as JSON: a category cannot be a list
            return json.loads(str(trial.suggest_categorical(name, [json.dumps(value) for value in domain])))
        integers = isinstance(domain["low"], int) and isinstance(domain["high"], int)
        return (trial.suggest_int if integers else trial.suggest_float)(name, **domain)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--space: {name}: {error}") from error


def _run_trial(study: "Study", trial: "Trial", config: Namespace, values: dict[str, Any]) -> None:
    """Train a trial, store its run's folder in the study, and report its state and value."""
    from optuna.trial import TrialState

    parser, prune = build_parser("fit"), Prune(trial)
    start = Start(parser, replace_values(parser, config, values))
    try:
        run = train(start, [prune], tested=False, opened=lambda run: trial.set_user_attr("run", run.folder.name))
        if (accuracy := run.results()["fit"]["best_val_accuracy"]) is None:
            raise ValueError("it ended before its first validation")  # noqa: TRY301  # reported as any other failure
    except Stopped as stopped:
        raise Stopped(stopped.number, ": to resume, the same command") from None
    except Exception as error:  # noqa: BLE001  # no failure of a trial ends the study
        print(f"the trial failed: {' '.join(str(error).split()) or type(error).__name__}\n")
        _fail(study, trial.number)
        return
    if prune.pruned:
        print("the trial was pruned: other trials had a higher accuracy after as many epochs\n")
        study.tell(trial, state=TrialState.PRUNED)
    else:
        print()
        study.tell(trial, accuracy)


def _report(study: "Study", folder: Path) -> None:
    """Print the best trials, and write the settings of the best one to `best.yaml`, unless trials are still running."""
    states = [trial.state.name.lower() for trial in study.trials]
    if "running" in states:
        print("other processes still run trials: the last one reports")
        return
    print(", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not complete:
        raise ValueError("no trial is complete, so there is no best one")
    best = sorted(complete, key=_accuracy, reverse=True)
    print("val/accuracy  run")
    for trial in best[:MAX_ROWS]:
        values = {name: json.loads(v) if isinstance(v, str) else v for name, v in trial.params.items()}
        print(f"{_accuracy(trial):12.4f}  {trial.user_attrs['run']:<12} {_format_values(values)}")
    parser = build_parser("fit")
    config = parse(parser, [f"--config={Run(folder / best[0].user_attrs['run']).config}"])
    config.experiment = f"{folder.name}_best"
    write_atomically(target := folder / "best.yaml", parser.dump(config, skip_unset=False).encode())
    print(f"\nsettings of the best trial: {target}; to train it, {PROGRAM} fit --config {target}")


def _accuracy(trial: "FrozenTrial") -> float:
    return trial.value or 0.0


def _format_values(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
