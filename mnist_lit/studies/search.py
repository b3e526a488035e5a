"""Search hyperparameters with Optuna: each trial is a run, and its objective value is the validation accuracy."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from mnist_lit.commands.fit import LIMITS, Start, is_changeable, train
from mnist_lit.commands.flags import build_data, build_parser, flat_settings, parse, replace_values
from mnist_lit.datasets.sampling import derive_seed
from mnist_lit.runs.folders import ROOT, Run
from mnist_lit.studies.seeds import align, require_complete_runs, validation_images
from mnist_lit.studies.statistics import selection_bonus
from mnist_lit.system.errors import UsageError, suggest
from mnist_lit.system.files import write_atomically
from mnist_lit.system.output import say
from mnist_lit.system.program import PROGRAM, install_hint
from mnist_lit.system.signals import Stopped
from mnist_lit.training.callbacks import DivergedError
from mnist_lit.training.checkpointing import EpochCheckpoint

try:
    import optuna
    from optuna import Study, Trial
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState
except ImportError as missing:
    raise UsageError(f"search requires {missing.name}: {install_hint('search')}") from missing

__all__ = ["search"]


def search(argv: Sequence[str]) -> None:
    """Run trials until the study has `--trials` of them, print the best ones, and write `best.yaml`.

    The study is stored in a journal file beside its runs. The same command resumes a study that was stopped; in
    several terminals, it runs trials of the same study side by side.

    Raises:
        UsageError: if a flag or the search space is wrong.
        ValueError: if no trial is complete.
    """
    config = parse(build_parser("search"), argv)
    space, trials = (config.pop(name) for name in ("space", "trials"))
    study = _open_study(folder := ROOT / config.experiment, config, space)
    for running in study.get_trials(states=(TrialState.RUNNING,)):  # one without a run may still read its images
        run = Run(folder / running.user_attrs.get("run", ""))
        if "run" in running.user_attrs and not run.is_locked() and "fit" not in run.results():
            study.tell(running.number, state=TrialState.FAIL)  # its process was killed
    while len(study.trials) < trials:
        tried = {_key(trial.params): trial for trial in study.trials if _is_tried(trial)}
        trial = study.ask()
        # So the same search samples the same values, and processes that share a study sample different ones.
        study.sampler = TPESampler(seed=derive_seed(config.seed, trial.number))
        try:
            values = {name: _suggest(trial, name, domain, config[name]) for name, domain in space.items()}
            say(f"trial {trial.number + 1} of {trials}: {_format_values(trial.params)}")
            if same := tried.get(_key(trial.params)):  # which would give the same weights
                run = same.user_attrs["run"]
                say(f"not trained again: these are the values of {run}", "")
                trial.set_user_attr("run", run)
                study.tell(trial, same.value if same.state == TrialState.COMPLETE else None, state=same.state)
                continue
            _run_trial(study, trial, replace_values(build_parser("fit"), config, values))
        except Stopped as stopped:
            raise Stopped(stopped.number, f"{PROGRAM} {shlex.join(['search', *argv])}") from None
        finally:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    _report(study, folder)


def _open_study(folder: Path, config: Namespace, space: Mapping[str, Any]) -> Study:
    """Return the study in a folder.

    Raises:
        UsageError: if a flag or the search space is wrong.
    """
    if not space:
        raise UsageError("--trials requires --space or --config search")
    if 0 in {config.data.val_size, config.trainer.limit_val_batches}:
        raise UsageError("search requires a validation: --data.val_size and --trainer.limit_val_batches must not be 0")
    require_complete_runs(config, "search")
    build_data(config.data)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser, example = build_parser("fit"), optuna.create_study().ask()  # a trial in memory, to check the space
    for name, domain in space.items():
        if name not in config or isinstance(config[name], Namespace):
            raise UsageError(f"--space: no setting {name}{suggest(name, config.keys())}")
        with catch_warnings(action="error", category=UserWarning):  # of a step that does not divide the range
            sampled = _suggest(example, name, domain, config[name])
        for value in domain if isinstance(domain, list) else (domain["low"], domain["high"], sampled):
            changed = replace_values(parser, config, {name: value})
            if name == "data.dataset":
                build_data(changed.data)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(storage=storage, study_name=folder.name, direction="maximize", load_if_exists=True)
    settings = flat_settings(parser, config)
    settings = {name: value for name, value in settings.items() if name in LIMITS or not is_changeable(name)}
    settings |= {f"space {name}": domain for name, domain in space.items() if isinstance(domain, list)}
    settings |= dict.fromkeys(("config", "ckpt_path"))
    earlier = study.user_attrs.get("settings", settings)
    if others := sorted(name for name in {*settings, *earlier} if settings.get(name) != earlier.get(name)):
        raise UsageError(f"{folder}: this study has other {', '.join(others)}: give another --experiment")
    study.set_user_attr("settings", settings)
    return study


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _is_tried(trial: FrozenTrial) -> bool:
    """Return whether a trial would end in the same way again; not if it was killed, or the disk was full."""
    if trial.state == TrialState.FAIL:
        return "diverged" in trial.user_attrs
    return trial.state in {TrialState.COMPLETE, TrialState.PRUNED}


def _suggest(trial: Trial, name: str, domain: Any, default: Any) -> Any:
    """Return a sampled value of a list (categorical) or of a range.

    A range is of integers if both bounds are, and the setting's `default` is not a float.

    Raises:
        UsageError: if Optuna refuses the list or range, or if the study has other choices.
    """
    try:
        if isinstance(domain, list):  # as JSON: a category cannot be a list
            return json.loads(str(trial.suggest_categorical(name, [json.dumps(value) for value in domain])))
        integers = {type(domain["low"]), type(domain["high"])} == {int} and not isinstance(default, float)
        return (trial.suggest_int if integers else trial.suggest_float)(name, **domain)
    except (ValueError, TypeError, KeyError, UserWarning) as error:
        form = "a list of choices, or low and high (and log or step)"
        reason = "" if isinstance(error, KeyError) else f": {error}"
        raise UsageError(f"--space: {name} requires {form}{reason}") from error


def _run_trial(study: Study, trial: Trial, config: Namespace) -> None:
    """Train a trial, store its run's folder in the study, and report its state and value unless it has failed."""
    pruned = False

    def prune(trainer: Trainer, _module: LightningModule) -> None:
        """Report the validation accuracy. If the trial is pruned, the run ends as if this was its last epoch."""
        nonlocal pruned
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, EpochCheckpoint) and checkpoint.validated_step == trainer.global_step:
            trial.report(float(trainer.callback_metrics["val/accuracy"]), trainer.current_epoch)
            pruned = trial.should_prune()
            trainer.should_stop |= pruned

    start, callback = Start(build_parser("fit"), config), LambdaCallback(on_train_epoch_end=prune)
    try:
        run = train(start, [callback], tested=False, opened=lambda run: trial.set_user_attr("run", run.folder.name))
        if (accuracy := run.results()["fit"]["best_val_accuracy"]) is None:
            raise ValueError("it ended before its first validation")  # noqa: TRY301  # reported as any other failure
    except Exception as error:  # noqa: BLE001  # no failure of a trial ends the study
        if isinstance(error, DivergedError):
            trial.set_user_attr("diverged", True)  # these values would diverge again
        say(f"the trial failed: {' '.join(str(error).split()) or type(error).__name__}", "")
        return
    if pruned:
        say("the trial was pruned: other trials had a higher accuracy after as many epochs")
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, accuracy)
    say("")


def _report(study: Study, folder: Path) -> None:
    """Print the best trials, and write the settings of the best one to `best.yaml`."""
    states = Counter(trial.state.name.lower() for trial in study.trials)
    say(", ".join(f"{number} {state}" for state, number in sorted(states.items())))
    complete = sorted(study.get_trials(states=(TrialState.COMPLETE,)), key=attrgetter("value"), reverse=True)
    best = [*{trial.user_attrs["run"]: trial for trial in complete}.values()]  # each run once
    if not best:
        raise ValueError("no trial is complete, so there is no best one")
    rows = [[f"{trial.value:.4f}", trial.user_attrs["run"], _format_values(trial.params)] for trial in best[:10]]
    say(*align([["val/accuracy", "run", ""], *rows]))
    parser = build_parser("fit")
    config = parse(parser, [f"--config={Run(folder / best[0].user_attrs['run']).config}"])
    config.experiment, config.seed = f"{folder.name}_best", config.seed + 1  # the trials' seed has selected it
    write_atomically(target := folder / "best.yaml", parser.dump(config, skip_unset=False).encode())
    images = validation_images(Run(folder / best[0].user_attrs["run"]))
    bonus = selection_bonus(len(best), best[0].value or 0.0, images)
    say(
        "",
        f"settings of the best trial, with another seed: {target}",
        f"as the best of {len(best)} trials, it may owe {100 * bonus:.2f} points to chance: to confirm it,",
        f"{PROGRAM} fit --config {target} --seeds 3",
    )


def _format_values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
