"""Canonical names and contents: there and back, and unchanged by a second pass."""

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dns.content import STRING_OCTETS, canonical, name, txt, txt_strings, txt_value

settings.register_profile("unhurried", deadline=None)  # an example's duration depends on the machine
settings.load_profile("unhurried")

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=1200)
LABEL = st.from_regex(r"\A[a-z0-9_]([a-z0-9-]{0,20}[a-z0-9])?\Z")


@given(PRINTABLE)
def test_a_text_survives_being_stored(value: str):
    assert txt_value(txt(value)) == value


@given(PRINTABLE)
def test_the_stored_form_is_what_an_independent_parser_reads(value: str):
    parsed = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, txt(value))
    assert b"".join(parsed.strings).decode() == value
    assert parsed.to_text() == txt(value)


@given(PRINTABLE)
def test_storing_what_is_stored_changes_nothing(value: str):
    assert canonical("TXT", txt(value)) == txt(value)


@given(PRINTABLE)
def test_no_string_is_too_long_and_all_but_the_last_are_full(value: str):
    *full, last = txt_strings(txt(value))
    assert all(len(part) == STRING_OCTETS for part in full)
    assert len(last) <= STRING_OCTETS


@given(st.lists(LABEL, min_size=2, max_size=5), st.sampled_from(["", "."]))
def test_a_name_is_the_same_however_it_is_written(labels: list[str], dot: str):
    written = ".".join(labels)
    assert name(written.upper() + dot) == written
    assert canonical("CNAME", written.upper() + dot) == written


def test_an_international_name_is_punycode():
    assert name("Bücher.Example.") == "xn--bcher-kva.example"
    assert name("_dmarc.Bücher.example") == "_dmarc.xn--bcher-kva.example"


def test_a_text_without_quotes_is_one_string():
    assert canonical("TXT", "v=spf1 -all") == '"v=spf1 -all"'
    assert canonical("TXT", '"v=spf1 " "-all"') == '"v=spf1 -all"'


@pytest.mark.parametrize("value", ["Straße", "line\nbreak", "nul\0"])
def test_what_is_not_printable_ascii_is_refused(value: str):
    with pytest.raises(ValueError, match="printable ASCII"):
        txt(value)


@pytest.mark.parametrize(("kind", "written", "stored"), [("A", " 192.0.2.1 ", "192.0.2.1"), ("AAAA", "2001:DB8:0::25", "2001:db8::25")])
def test_addresses_are_compressed(kind: str, written: str, stored: str):
    assert canonical(kind, written) == stored
