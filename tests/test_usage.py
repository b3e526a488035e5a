"""What is wrong is said in one line, with the nearest right word."""

from mnist_lit.usage import nearest, told, without_password


def test_the_nearest_word_is_offered_if_one_is_near() -> None:
    assert nearest("data.batch_sze", ["data.batch_size", "data.val_size"], prefix="--") == (
        ": did you mean --data.batch_size?"
    )
    assert nearest("xyz", ["fit", "test"]) == ""


def test_an_account_of_an_unknown_form_is_passed_on() -> None:
    assert told("the sky is falling", [], []) == "the sky is falling"
    assert told('Parser key "seed": the sky is falling', [], []) == "--seed: the sky is falling"


def test_no_password_is_ever_shown() -> None:
    for address in ("https://me:se@cret@host/a", "ftp://secret@host/a", "me:secret@host/a"):
        assert "cret" not in without_password(f"{address}: refused")
        assert without_password(address).endswith("host/a")
    assert without_password("/home/me@work: full") == "/home/me@work: full"
