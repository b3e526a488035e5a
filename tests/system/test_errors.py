"""Usage errors are one line, with a suggestion and without passwords."""

import pytest

from mnist_lit.commands.flags import build_parser
from mnist_lit.system.errors import explain_parser_error, suggest


def test_unknown_messages_are_passed_on() -> None:
    assert explain_parser_error("another message", [], []) == "another message"
    assert explain_parser_error('Parser key "seed": another message', [], []) == "--seed: another message"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *(("model.lr", "model.learning_rate"), ("lr", "model.learning_rate"), ("trainer.gpus", "trainer.devices")),
        *(
            ("seed_everything", "seed"),
            ("trainer.max_nb_epochs", "trainer.max_epochs"),
            ("dta.val_size", "data.val_size"),
        ),
        *(("model.class_path", None), ("model.init_args.lr", None), ("chanels", "model.channels")),
    ],
)
def test_the_most_similar_setting_is_suggested_or_none(word: str, expected: str | None) -> None:
    known = build_parser("fit").get_defaults().keys()
    assert suggest(word, known) == (f": did you mean {expected}?" if expected else "")
