"""Reading: how a CSV file is written is found out from its bytes, and said in three checked words."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.ml.reading import DELIMITERS, Reading, sniff

WORDS = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=8)


@given(
    st.integers(2, 6).flatmap(lambda n: st.lists(st.lists(WORDS, min_size=n, max_size=n), min_size=3, max_size=8)),
    st.sampled_from(DELIMITERS),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_i_12_what_is_sniffed_reads_the_file_back(table, delimiter, encoding):
    """Whatever stands in the cells: the sniffed delimiter gives every line as many fields as there were columns."""
    names = [f"column_{n}" for n in range(len(table[0]))]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([names, *table])
    found = sniff(text.getvalue().encode(encoding))
    lines = list(csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=found.delimiter))
    assert (found.delimiter, lines[0]) == (delimiter, names)
    assert text.getvalue().encode(encoding).decode(found.encoding).lstrip("\ufeff") == text.getvalue()


@pytest.mark.parametrize(
    ("content", "decimal"),
    [
        ("a;b\n1,5;2\n3,25;4\n", ","),
        ("a;b\n1.5;2\n3.25;4\n", "."),
        ('a,b\n"1,5",2\n"3,25",4\n', ","),
        ('a,b\n"1,500",2\n"3,250",4\n', "."),
        ("a;b\n1;2\n", "."),
        ("a\tb\n1,5\t2.5\n1,7\t2\n", ","),
    ],
)
def test_i_12_the_decimal_sign_is_that_of_most_numbers(content, decimal):
    """A comma among semicolons is a decimal sign; among quoted thousands it is not."""
    assert sniff(content.encode()).decimal == decimal


def test_i_12_one_byte_encodings_are_told_apart():
    """Umlauts alone are Latin-1; a euro sign makes it Windows-1252; a sign cut in two at the end is still UTF-8."""
    assert sniff("a,b\nMüller,1\n".encode("latin-1")).encoding == "latin-1"
    assert sniff("a,b\n5 €,1\n".encode("cp1252")).encoding == "cp1252"
    assert sniff("a,b\nMü".encode()[:-1]).encoding == "utf-8"


@pytest.mark.parametrize(
    "wrong", [{"encoding": "utf-9"}, {"delimiter": ";;"}, {"delimiter": '"'}, {"decimal": "x"}, {"delimeter": ";"}]
)
def test_a_reading_that_cannot_be_is_refused(wrong):
    """An unknown encoding, a delimiter of two signs, a decimal sign that is none, a mistyped key."""
    with pytest.raises(ValidationError):
        Reading(**wrong)
