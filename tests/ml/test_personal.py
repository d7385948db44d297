"""Personal data is known by its form, and by its name only where the values could be such."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ml.personal import luhn, personal

MANY = range(60)


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("x", [f"a{i}@b.co" for i in MANY], "e-mail"),
        ("x", [f"+1 212 555 {i:04d}" for i in MANY], "telephone"),
        ("x", [f"(030) 123-{i:04d}" for i in MANY], "telephone"),
        ("mobileNumber", [4917012345600 + i for i in MANY], "telephone"),
        ("x", ["4111 1111 1111 1111", "5500-0055-5555-5559"], "card"),
        ("card_number", [f"4111 **** **** {i:04d}" for i in MANY], "card"),
        ("x", ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"], "IBAN"),
        ("x", ["078-05-1120", "219-09-9999"], "identity"),
        ("x", ["QQ123456C".replace("QQ", "AB")], "identity"),
        ("x", ["12345678Z", "87654321X"], "identity"),
        ("x", ["529.982.247-25"], "identity"),
        ("passport_no", [f"C01X{i:05d}" for i in MANY], "identity"),
        ("last_name", [f"Name {i}" for i in MANY], "names"),
        ("client_ip", [f"192.168.0.{i}" for i in MANY], "IP"),
    ],
)
def test_i_26_forms_of_personal_data(name, values, what):
    """E-mail, telephone, card, account, identity numbers, people's names, addresses of machines."""
    assert what in str(personal(name, pa.array(values)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("phone_service", ["yes", "no"] * 30),
        ("email_opened", [True, False]),
        ("email", ["daily", "weekly"] * 30),
        ("at", [f"2024-01-{1 + i % 28:02d}" for i in MANY]),
        ("at", [f"{1 + i % 28:02d}.01.2024" for i in MANY]),
        ("amount", [1.5 * i for i in MANY]),
        ("transaction_id", [1_600_000_000_000 + 37 * i for i in MANY]),
        ("version", [f"1.2.{i}" for i in MANY]),
        ("product_name", [f"shoe {i}" for i in MANY]),
        ("town", ["Ulm", "Bonn"]),
        ("flight", [f"UA {i}" for i in MANY]),
        ("empty", [None, ""]),
    ],
)
def test_i_26_what_only_looks_alike_stays(name, values):
    """Flags about telephones, dates, versions, running numbers and names of things are no personal data."""
    assert personal(name, pa.array(values)) is None


@given(st.integers(10**11, 10**18), st.integers(1, 9), st.data())
def test_the_check_digit_catches_every_single_wrong_digit(number, by, data):
    """Luhn: exactly one of ten last digits fits, and changing any one digit of a fitting number breaks it."""
    fitting = [digits for last in range(10) if luhn(digits := f"{number}{last}")]
    assert len(fitting) == 1
    place = data.draw(st.integers(0, len(fitting[0]) - 1))
    wrong = list(fitting[0])
    wrong[place] = str((int(wrong[place]) + by) % 10)
    assert not luhn("".join(wrong))
