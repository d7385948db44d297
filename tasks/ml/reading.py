"""Reading: how a project's text files are written, and how to find that out from their first bytes."""

import codecs
import csv
import io
import re

from pydantic import BaseModel, Field, field_validator

KINDS: dict[str, str] = {  # what a file is, by the end of its name
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
DELIMITERS = (",", ";", "\t", "|")
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
LINES = 200  # so many lines tell delimiter and decimal sign
POINT, COMMA = re.compile(r"[+-]?\d+\.\d+"), re.compile(r"[+-]?\d+,(\d+)")


class Reading(BaseModel, frozen=True, extra="forbid"):
    """How a project's CSV files are written; Parquet and JSON lines say it themselves."""

    encoding: str = Field(default="utf-8", description="of CSV files: utf-8, latin-1, cp1252, utf-16, …")
    delimiter: str = Field(default=",", description='what stands between two columns; a tab is "\\t"')
    decimal: str = Field(default=".", description="what stands before the decimals: a point or a comma")

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise ValueError(f"'{encoding}' is no encoding; for example: utf-8, latin-1, cp1252, utf-16") from error
        return encoding

    @field_validator("delimiter")
    @classmethod
    def _is_one_sign(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ValueError(
                f"{delimiter!r} cannot stand between columns; wanted one sign, for example ',' ';' '|' or a tab"
            )
        return delimiter

    @field_validator("decimal")
    @classmethod
    def _is_point_or_comma(cls, decimal: str) -> str:
        if decimal not in {".", ","}:
            raise ValueError(f"{decimal!r} is no decimal sign; wanted '.' or ','")
        return decimal


def sniff(head: bytes) -> Reading:
    r"""How the CSV file that begins with these bytes is written.

    The encoding reads all of them, the delimiter gives every line as many fields as the first, and most numbers have
    the decimal sign.

    >>> sniff("prix;été\n1,5;oui\n2,25;non\n".encode("cp1252"))
    Reading(encoding='latin-1', delimiter=';', decimal=',')
    >>> sniff(b"a,b\n1.5,x\n")
    Reading(encoding='utf-8', delimiter=',', decimal='.')
    """
    encoding = encoding_of(head)
    lines = io.StringIO(_whole_lines(head.decode(encoding, errors="replace")), newline="")
    tables = {delimiter: _table(lines.getvalue(), delimiter) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda sign: _regular(tables[sign]))
    cells = [cell.strip() for row in tables[delimiter][1:] for cell in row]
    return Reading(encoding=encoding, delimiter=delimiter, decimal=_decimal(cells, delimiter))


def encoding_of(content: bytes) -> str:
    """Name of the encoding: the mark at the beginning decides, then UTF-8 if it reads, else the Western one of one byte a sign.

    >>> encoding_of("5 €".encode("cp1252")), encoding_of("5 €".encode("utf-8")), encoding_of("été".encode("latin-1"))
    ('cp1252', 'utf-8', 'latin-1')
    """
    for mark, name in MARKS:
        if content.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)  # a sign that is cut at the end is no error
    except UnicodeDecodeError:
        return "cp1252" if re.search(rb"[\x80\x82-\x8c\x8e\x91-\x9c\x9e\x9f]", content) else "latin-1"
    return "utf-8"


def _whole_lines(text: str) -> str:
    """Without the last line when more follow it, because it may be cut."""
    end = text.rfind("\n")
    return text[: end + 1] if text.count("\n") > 1 else text


def _table(text: str, delimiter: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) == LINES:
                break
    except csv.Error:
        return rows
    return rows


def _regular(rows: list[list[str]]) -> tuple[float, int]:
    """Share of lines with as many fields as the first, and that number; nothing when there is one field only."""
    if not rows or len(rows[0]) < 2:
        return 0.0, 0
    return round(sum(len(row) == len(rows[0]) for row in rows) / len(rows), 1), len(rows[0])


def _decimal(cells: list[str], delimiter: str) -> str:
    """A comma when more numbers have one than a point; among quoted ones three digits behind it may be thousands."""
    commas = [match.group(1) for cell in cells if (match := COMMA.fullmatch(cell))]
    points = sum(bool(POINT.fullmatch(cell)) for cell in cells)
    surely = delimiter != "," or any(len(digits) != 3 for digits in commas)
    return "," if len(commas) > points and surely else "."
