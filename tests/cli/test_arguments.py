"""Arguments of plans from the command line."""

import pytest

from bec_bluesky.cli._arguments import parse_arguments, parse_value
from bec_bluesky.errors import BadArgumentError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("samx", "samx"),
        ("samx.velocity", "samx.velocity"),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("-1.5e-3", -0.0015),
        ("True", True),
        ("None", None),
        ("true", "true"),
        ("'samx'", "samx"),
        ('"CuO A"', "CuO A"),
        ("CuO A", "CuO A"),
        ("[det]", ["det"]),
        ("[det1, det2.image, 'x y']", ["det1", "det2.image", "x y"]),
        ("det1,det2", ["det1", "det2"]),
        ("det,", ["det"]),
        ("[]", []),
        ("[[samx, -1, 1], [samy, 0, 2.5]]", [["samx", -1, 1], ["samy", 0, 2.5]]),
        ("{sample: CuO, 'T': 4.2}", {"sample": "CuO", "T": 4.2}),
        ("2026-01-31", "2026-01-31"),
        ("/data/x.h5", "/data/x.h5"),
        ("1_000", 1000),
        ("", ""),
    ],
)
def test_a_value_reads_as_a_person_means_it(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["[det", "(1, 2", "'open", "[f(1)]", "[1+1]", "{**a}", "[x for x in y]", "[-True]"])
def test_brackets_that_cannot_be_read_are_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(BadArgumentError, match=r"cannot be read .* write "):
        parse_value(text)


def test_nothing_is_ever_evaluated() -> None:
    assert parse_value("__import__('os').getpid()") == "__import__('os').getpid()"
    with pytest.raises(BadArgumentError):
        parse_value("[__import__('os').getpid()]")


def test_deep_nesting_is_refused_instead_of_overflowing() -> None:
    with pytest.raises(BadArgumentError):
        parse_value("[" * 10_000 + "]" * 10_000)


def test_positional_and_named_words_are_told_apart() -> None:
    args, kwargs = parse_arguments(["[det]", "samx", "-5", "5", "num=11", "md={'a': 1}", "note=a=b"])
    assert args == [["det"], "samx", -5, 5]
    assert kwargs == {"num": 11, "md": {"a": 1}, "note": "a=b"}


def test_a_positional_word_after_a_named_one_is_refused() -> None:
    with pytest.raises(BadArgumentError, match="stands after num="):
        parse_arguments(["num=3", "samx"])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(BadArgumentError, match="num= is given twice"):
        parse_arguments(["num=3", "num=4"])
