"""Phrases that read as translated, and what to write instead; see CONTRIBUTING.md."""

import re
import subprocess

import pytest

from tools.offline.stackfile import ROOT

INSTEAD = {
    r"\b[Ss]t(and|ands|anding|ood)\b(?!-in)": "is set, is listed, is in",
    r"\b(is|are|was) none\b|(?<!here )\bis no (?!longer|more)\w": "is not (a valid) …",
    r"\b([Ww]hoever|[Ss]omebody|(?<![=@] )[Nn]obody(?!@))\b": "the user, another process, no one; or rephrase",
    r"\b[Ww]ay (in|out)\b": "inbound path, outbound path",
    r"\b[Ll]ead(s|ing)? (to|outside|elsewhere|back)\b": "points to, forwards to",
    r"\b[Ll]ook-ups?\b": "lookup",
    r"\bfor ever\b": "forever",
    r"\bput(s|ting)? aside\b": "moved aside",
    r"\b[Tt]he world\b": "the Internet",
    r"\b[Ss]trangers?\b": "an external sender or address",
    r"\btakes? for granted\b": "expects",
    r"\b[Ll]ook(s|ed)? after\b": "manages",
    r"\broom (for|left)\b|\b(enough|no|little|the) room\b": "free space",
}
ANY = re.compile("|".join(f"(?:{phrase})" for phrase in INSTEAD))
NOT_TEXT = (".lock", ".png", ".zone", "tests/unit/test_words.py", "tests/crds/", "tests/program/golden/", "tests/contract/pfsense/")


def found():
    """`path: line: phrase; write …` for each phrase."""
    for path in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split():
        if any(part in path for part in NOT_TEXT) or not (ROOT / path).is_file():
            continue
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), start=1):
            text = line.replace("_", " ")
            if not ANY.search(text):
                continue
            for phrase, instead in INSTEAD.items():
                if hit := re.search(phrase, text):
                    yield f"{path}: {number}: {hit[0]!r}; write: {instead}"


def test_texts_are_written_in_the_fields_terms():
    hits = list(found())
    assert hits == [], "\n".join(hits)


@pytest.mark.parametrize(
    "text",
    [
        "the key stands in the store",
        "a schedule that is none",
        "this is no text",
        "whoever reads it",
        "two ways: the way in",
        "ten look-ups",
    ],
)
def test_the_old_phrasing_is_seen(text):
    assert any(re.search(phrase, text) for phrase in INSTEAD)


@pytest.mark.parametrize("text", ["a stand-in for kubectl", "if x is None", "there is no stack", "is no longer used", "user = nobody"])
def test_ordinary_words_are_left_alone(text):
    assert not any(re.search(phrase, text) for phrase in INSTEAD)
