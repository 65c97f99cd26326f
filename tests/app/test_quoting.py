"""Names and values of any sort go through a flag, and what a message advises is read as it was meant."""

import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nablax.app._errors import UserError
from nablax.app._quoting import assignment, names, pairs, quoted

anything = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)


@given(anything, anything)
def test_an_assignment_that_is_advised_is_read_as_it_was_meant(name, value):
    (argument,) = shlex.split(assignment(name, value))
    assert pairs([argument], "--kind") == {name: value}


@given(st.lists(anything, min_size=1, max_size=4))
@example(['0" ', " ", '"', ""])
def test_names_joined_by_commas_come_apart(columns):
    assert names([",".join(map(quoted, columns))]) == tuple(columns)


def test_names_that_are_not_quoted_lose_their_blanks_and_the_empty_ones():
    assert names([" a , b,,", "", '"k,l" ,m', 'say "hi", "say ""ho"""']) == (
        "a",
        "b",
        "k,l",
        "m",
        'say "hi"',
        'say "ho"',
    )
    with pytest.raises(UserError, match="behind a quoted one"):
        names(['"a"b,c'])


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a=1", ("a", "1")),
        (" a = 1", ("a", " 1")),
        ("a=b=c", ("a", "b=c")),
        ('"k=1"=2', ("k=1", "2")),
        ('""=2', ("", "2")),
        ('a=" Male"', ("a", " Male")),
        ('a="x', ("a", '"x')),
        ('"say ""so"""=1', ('say "so"', "1")),
    ],
)
def test_pairs(text, pair):
    assert pairs([text], "--condition") == dict([pair])


def test_a_column_that_is_named_twice():
    with pytest.raises(UserError, match="--condition names column 'a' twice"):
        pairs(["a=0", "b=1", '"a"=1'], "--condition")


@pytest.mark.parametrize("text", ["a", "=1", '"a"'])
def test_what_is_no_pair_is_refused(text):
    with pytest.raises(UserError, match="--condition takes COLUMN=VALUE"):
        pairs([text], "--condition")


def test_names_may_be_joined_or_repeated():
    assert names(["a, b", "c"]) == ("a", "b", "c")
    assert names(['"k,l",m', '" k "', '""']) == ("k,l", "m", " k ", "")
