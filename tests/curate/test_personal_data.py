"""Personal data in the formats of ten countries and more; and numbers that are none."""

from __future__ import annotations

import pytest

from ftlib.curate.personal_data import KINDS, Span, find, redact
from ftlib.errors import InputError

# All numbers are examples: of the countries' own pages, of the makers' documentation, or made up with check digits.
FORMATS = {
    "email": (
        "ana.lopez@example.com",
        "j.o'neil+news@mail.example.co.uk",
        "müller@example.de",
        "USER_1@sub.example.museum",
        "пример@example.org",
        "a@b-c.io",
    ),
    "phone": (
        *("+1 212-736-5000", "(212) 736-5000", "212-736-5000", "212.736.5000", "1-800-275-2273", "+12127365000"),
        *("+44 20 7946 0958", "020 7946 0958", "07911 123456", "+44 (0)20 7946 0958", "0161 496 0000"),
        *("+49 30 901820", "030 901820", "030/901820", "0151 23456789", "+49 (0) 89 12345678", "0049 30 901820"),
        *("+33 1 42 68 53 00", "01 42 68 53 00", "06.12.34.56.78", "06 12 34 56 78", "+33 (0)6 12 34 56 78"),
        *("+34 912 345 678", "912 345 678", "612 34 56 78", "+34612345678", "91 234 56 78"),
        *("+39 06 6982", "06 69812345", "+39 347 123 4567", "347 123 4567", "02 1234 5678"),
        *("+31 20 794 0000", "020 794 0000", "06-12345678", "06 12345678", "+31 6 12345678"),
        *("+55 11 91234-5678", "(11) 91234-5678", "11 91234-5678", "+55 (21) 2345-6789", "(21) 2345-6789"),
        *("+91 98765 43210", "98765 43210", "098765 43210", "+91-9876543210", "011-23456789"),
        *("+81 3-3224-5000", "03-3224-5000", "090-1234-5678", "+81 90-1234-5678", "0120-123-456"),
        *("+86 138 0013 8000", "+7 495 123-45-67", "+48 22 123 45 67", "+46 8 123 456 78", "+61 2 9374 4000"),
    ),
    "card": (
        *("4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111", "5500 0000 0000 0004"),
        *("3782 822463 10005", "378282246310005", "6011 1111 1111 1117", "3530 1113 3330 0000", "3056 9309 0259 04"),
        *("2223 0031 2200 3222", "6200 0000 0000 0005", "6759 6498 2643 8453"),
    ),
    "iban": (
        *("DE89 3704 0044 0532 0130 00", "DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19"),
        *("FR14 2004 1010 0505 0001 3M02 606", "ES91 2100 0418 4502 0005 1332", "IT60 X054 2811 1010 0000 0123 456"),
        *("NL91 ABNA 0417 1643 00", "BE68 5390 0754 7034", "CH93 0076 2011 6238 5295 7", "AT61 1904 3002 3457 3201"),
        *("PL61 1090 1014 0000 0712 1981 2874", "SE45 5000 0000 0583 9825 7466", "PT50 0002 0123 1234 5678 9015 4"),
        *("BR18 0036 0305 0000 1000 9795 493C 1", "NO93 8601 1117 947", "SA03 8000 0000 6080 1016 7519"),
    ),
    "national_id": (
        *("536-90-4399", "AB 12 34 56 C", "86 095 742 719", "1 90 05 75 056 782 57"),
        *("54362315-K", "X-2482300W", "RCCMNL83S18D969H", "390.533.447-05", "2341 2341 2346", "811228-9874"),
        *("44051401359", "756.9217.0769.85", "311280-888Y", "360426199101010071"),
    ),
    "ip": ("192.0.2.146", "203.0.113.9", "2001:db8::8a2e:370:7334", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
    "secret": (
        *("AKIAIOSFODNN7EXAMPLE", "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a", "glpat-" + "x9Kq2LmPz7RtVw4Yb1Nc"),
        *(
            "sk-" + "proj-a8Df3kLm9Qw2Er5Ty7Ui0Op4",
            "sk-ant-" + "api03-Zx9Yw8Vu7Ts6Rq5Po4Nm",
            "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
        ),
        *(
            "xoxb-" + "123456789012-abcdefGHIJKL",
            "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
            "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
        ),
        "npm_" + "aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    ),
}
AROUND = ("My number is {}.", "{}", "Write to ({}), please!", "Alice | {} | 30\n", "Tel.: {}, or later")
ROWS = [(kind, value, around) for kind, values in FORMATS.items() for value in values for around in AROUND]
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "IN", "JP", "PL", "SE", "CH", "FI", "CN")
NONE = (
    *("She sold 28980 - 18480 = 10500 clips.", "650 000 cars and 5 650 000 cars", "2011-2015 and 2024-03-17"),
    *("= 0.9235687435 (about)", "12/07/2021 at 10:30:45", "$1,234,567.89", "1234567890 stars", "version 1.2.3.4"),
    *("4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "pi is 3.14159265358979", "<<48/2=24>>24 clips, #### 72"),
    *("password: correct horse", "the secret is patience and time", "a @ b, @home, x@y", "std::vector and 10:30"),
    *("3600000000000 + 62426244000 + 198472480000", "numbers of 4000-4999", "355909190063-746 and 4212883012996"),
    *("items 100 200 300 400", "ISBN 978-3-16-148410-0", "2 + 2 - 1000000 * 3", "9999999999999999", "1e10 and 16:9"),
)  # fmt: skip


def test_nearly_all_of_the_formats_of_ten_countries_are_found_whole() -> None:
    missed = [row for row in ROWS if not _is_found(*row)]
    assert len(missed) <= 0.02 * len(ROWS), missed


def _is_found(kind: str, value: str, around: str) -> bool:
    start = around.index("{}")
    spans = find(around.format(value), [kind], REGIONS)
    return any(span.start <= start and start + len(value) <= span.end + (value[0] == "(") for span in spans)


@pytest.mark.parametrize("text", NONE)
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert find(text, regions=REGIONS) == []


def test_a_text_is_redacted_by_kind_and_the_surest_kind_wins() -> None:
    text = "Ana (ana@example.com, +34 912 345 678) pays from ES91 2100 0418 4502 0005 1332 by 4111 1111 1111 1111."
    assert redact(text) == "Ana ([EMAIL], [PHONE]) pays from [IBAN] by [CARD]."
    assert redact(text, ["email"]) == text.replace("ana@example.com", "[EMAIL]")
    assert find(text)[0] == Span(5, 20, "email")


def test_a_national_number_is_one_in_its_region_only() -> None:
    assert find("01 42 68 53 00", ["phone"], ["FR"])
    assert not find("01 42 68 53 00", ["phone"], ["US"])
    assert find("+33 1 42 68 53 00", ["phone"], [])


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="'fone' is no kind of personal data.*phone"):
        redact("x", ["fone"])
    assert set(FORMATS) == set(KINDS)


@pytest.mark.parametrize("part", ["1", "1 ", "1 2-3.", "a@", "AB12", "AB12 ", "a:", "a.", "eyJa.", "://a:"])
def test_a_long_text_made_to_be_slow_is_not(part: str) -> None:
    assert len(find(part * 20_000)) < 20_000
