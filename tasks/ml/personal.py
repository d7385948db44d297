"""Personal data: columns that look like e-mail addresses, telephone, card or identity numbers, names or addresses."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute

SAMPLE = 2000  # so many different values are looked at
FEW = 0.05  # share of values that must have a form which nothing else has
MOST = 0.8  # share of values that must have a form which others have by chance
pc: Any = pyarrow.compute  # its functions are made when it is imported, so no type checker knows them

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}")
IP = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)")
PHONE = re.compile(r"(?:\+|00)\d[\d\s().\-/]{6,18}|\(?\d{2,5}\)?[\s.\-/]\d{2,4}[\s.\-/]?\d{2,6}(?:[\s.\-/]\d{2,6})?")
SSN = re.compile(r"(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")  # United States
NINO = re.compile(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]")  # United Kingdom
DATED = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")

CALLED: tuple[tuple[re.Pattern[str], str], ...] = (  # by the column's name, when the values are texts of many kinds
    (re.compile(r"(?:^|_)e?_?mail(?:_?addr(?:ess)?)?$"), "e-mail addresses"),
    (re.compile(r"(?:^|_)(?:first|last|full|sur|given|family|maiden|middle|customer|patient|client|person|holder)_?names?$|(?:^|_)surname$"), "names of people"),
    (re.compile(r"(?:^|_)(?:street|street_?address|home_?address|address|addr|address_?line_?\d)$"), "postal addresses"),
    (re.compile(r"(?:^|_)(?:ssn|social_security(?:_n\w*)?|national_id(?:entity)?|passport(?:_\w+)?|nino|nhs_?n\w*|tax_?id|driver_?licen[cs]e\w*)$"), "identity numbers"),
)  # fmt: skip
RINGS = re.compile(r"(?:^|_)(?:phone|telephone|tel|mobile|cell|cellphone|fax)(?:_?(?:no|nr|number|num))?$")


def personal(name: str, values: pa.Array | pa.ChunkedArray) -> str | None:
    """What personal data a column looks like, or None.

    A form that hardly anything else has (e-mail, IBAN, identity number with a check digit) counts from one value in
    twenty on, also inside longer texts; one that other numbers may have by chance (telephone, card) from four in five.

    >>> personal("contact", pa.array(["ann@example.org", "bob@example.org"]))
    'e-mail addresses'
    >>> personal("number", pa.array([4111111111111111, 5500005555555559]))
    'card numbers'
    >>> personal("amount", pa.array([12.5, 40.0])) is None
    True
    """
    whole = pa.types.is_integer(values.type)
    texts = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not (whole or texts):
        return None
    found = pc.drop_null(pc.unique(values)).slice(0, SAMPLE).cast(pa.string()).to_pylist()
    sample = [text.strip() for text in found if text.strip()]
    if not sample:
        return None
    called = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s.\-]+", "_", name).lower()
    return (_by_form(sample, texts=texts) if texts else _cards(sample)) or _by_name(called, sample, texts=texts)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    >>> luhn("79927398713"), luhn("79927398710")
    (True, False)
    """
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[-1::-2]) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0


def iban(text: str) -> bool:
    """Whether a text is an International Bank Account Number with its check digits (ISO 13616: remainder 1 by 97).

    >>> iban("GB82 WEST 1234 5698 7654 32"), iban("GB82 WEST 1234 5698 7654 33")
    (True, False)
    """
    plain = text.replace(" ", "").upper()
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", plain):
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def cpf(text: str) -> bool:
    """Whether a text is a Brazilian taxpayer's number, written with its dots, with both check digits.

    >>> cpf("529.982.247-25"), cpf("529.982.247-26")
    (True, False)
    """
    if not re.fullmatch(r"\d{3}\.\d{3}\.\d{3}-\d{2}", text):
        return False
    digits = [int(sign) for sign in text if sign.isdigit()]
    return all(
        sum(digit * (size + 1 - at) for at, digit in enumerate(digits[:size])) * 10 % 11 % 10 == digits[size]
        for size in (9, 10)
    )


def dni(text: str) -> bool:
    """Whether a text is a Spanish identity number with its letter.

    >>> dni("12345678Z"), dni("12345678A")
    (True, False)
    """
    match = re.fullmatch(r"(\d{8})-?([A-Z])", text)
    return match is not None and "TRWAGMYFPDXBNJZSQVHLCKE"[int(match.group(1)) % 23] == match.group(2)


def _by_form(sample: list[str], *, texts: bool) -> str | None:
    forms: tuple[tuple[str, Callable[[str], object], float], ...] = (
        ("e-mail addresses", EMAIL.search, FEW),
        ("bank account numbers (IBAN)", iban, FEW),
        (
            "identity numbers",
            lambda text: SSN.fullmatch(text) or NINO.fullmatch(text) or cpf(text) or dni(text),
            FEW * 4,
        ),
        ("IP addresses", IP.fullmatch, MOST),
    )
    shown = next((what for what, test, share in forms if _share(test, sample) >= share), None)
    return shown or _cards(sample) or ("telephone numbers" if texts and _share(_rings, sample) >= MOST else None)


def _cards(sample: list[str]) -> str | None:
    """Random numbers pass the check once in ten, so nearly all must."""
    return "card numbers" if _share(_is_card, sample) >= MOST else None


def _is_card(text: str) -> bool:
    plain = re.sub(r"[ -]", "", text)
    return re.fullmatch(r"[2-6]\d{12,18}", plain) is not None and luhn(plain)


def _rings(text: str) -> bool:
    digits = sum(sign.isdigit() for sign in text)
    return 7 <= digits <= 15 and PHONE.fullmatch(text) is not None and DATED.fullmatch(text) is None


def _by_name(called: str, sample: list[str], *, texts: bool) -> str | None:
    """A name alone is a hint; the values must not be a handful of categories ('phone_service: yes')."""
    many = len(sample) > 20
    if RINGS.search(called) and _share(lambda text: 7 <= sum(sign.isdigit() for sign in text) <= 15, sample) >= MOST:
        return "telephone numbers"
    if (
        re.search(r"(?:^|_)(?:card_?(?:no|nr|num|number)|pan)$", called)
        and _share(lambda text: re.fullmatch(r"[\d\s*xX-]{12,23}", text), sample) >= MOST
    ):
        return "card numbers"
    numbered = CALLED[-1]
    if not texts:
        return numbered[1] if many and numbered[0].search(called) else None
    return next((what for pattern, what in CALLED if many and pattern.search(called)), None)


def _share(test: Callable[[str], object], sample: Iterable[str]) -> float:
    found = [bool(test(text)) for text in sample]
    return sum(found) / len(found)
