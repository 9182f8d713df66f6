"""The table of errors: unique, documented, and each row's words are said somewhere in the source."""

import ast
import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orlop
from orlop.spec import catalog, errors

SOURCES = Path(orlop.__file__).parent
# Said by somebody else, and passed on: the kernel, a registry, a resolver.
FOREIGN = (
    "no space left on device|No space left on device|Disk quota exceeded|Read-only file system|Permission denied|"
    "Operation not permitted|Too many open files|Resource temporarily unavailable|Cannot allocate memory|unauthorized|"
    "authentication required|denied:|access to the resource is denied|toomanyrequests|Too Many Requests|"
    "manifest unknown|repository does not exist|name unknown|Name or service not known|"
    "Temporary failure in name resolution|"
    "no such host|certificate verify failed|x509|No such file or directory|Address already in use"
).split("|")


@functools.cache
def said() -> str:
    """Return every text constant of the source but for the table's own, joined."""
    found = []
    for path in SOURCES.rglob("*.py"):
        if path != Path(catalog.__file__):
            tree = ast.parse(path.read_text())
            found += [
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\n".join(found)


def test_codes_are_unique_and_of_one_form():
    codes = [entry.code for entry in catalog.ENTRIES]
    assert len(set(codes)) == len(codes) >= 80
    assert all(len(code) == 5 and code[0] == "E" and code[1:].isdecimal() for code in codes)
    assert codes == sorted(codes)


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.code)
def test_each_entry_says_what_it_means_and_what_to_do(entry):
    assert entry.title and entry.title[0].isupper() and not entry.title.endswith(".")
    assert entry.meaning.endswith((".", ")")) and len(entry.meaning) > 20
    assert len(entry.remedy) > 5 and "unknown" not in entry.remedy


@pytest.mark.parametrize(
    "entry", [entry for entry in catalog.ENTRIES if entry.words != ("",)], ids=lambda entry: entry.code
)
def test_the_words_of_each_entry_are_said_somewhere(entry):
    def is_said(words):
        return all(part.strip() in said() for part in words.split("...")) or words in FOREIGN

    assert [words for words in entry.words if not is_said(words)] == []


def test_no_two_entries_claim_the_same_words_alike():
    for entry in catalog.ENTRIES:
        for words in entry.words if entry.words != ("",) else ():
            example = words.replace("...", " x ")
            claimed = {other.code: other.fit(example) for other in catalog.ENTRIES if other.fit(example)}
            best = [code for code, fit in claimed.items() if fit == max(claimed.values())]
            assert best == [entry.code], (words, claimed)


def test_every_class_has_a_code_of_its_own():
    for kind in errors._CLASSES:
        error = errors._CLASSES[kind]("do", "it", "something that no row describes")
        assert catalog.find(catalog.code_of(error)) is not None
    assert len(set(catalog.GENERAL.values())) == len(errors._CLASSES)


@given(st.text())
def test_any_cause_has_a_code(cause):
    assert catalog.find(catalog.code_of(errors.Invalid("do", "it", cause))) is not None


def test_codes_are_found_in_any_case():
    assert catalog.find("e0101") is catalog.find("E0101") is not None
    assert catalog.find("E9999") is None


def test_a_code_that_is_told_at_the_source_wins_and_travels():
    told = errors.Conflict("start", "container web", "it is not valid JSON", code="E0101")
    assert catalog.code_of(told) == "E0101"
    assert catalog.code_of(errors.from_json(told.to_json())) == "E0101"
    assert catalog.code_of(errors.Conflict("start", "container web", "it is not valid JSON", code="E9999")) == "E0211"
    assert "code" not in errors.Conflict("start", "container web", "why").to_json()


def test_every_code_that_the_source_names_is_in_the_table():
    named = {
        (path.name, node.value.value)
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str) and node.value.value
    }
    assert len(named) > 20 and [one for one in named if catalog.find(one[1]) is None] == []


def test_every_code_can_be_reached():
    """At a source, as the code of a class, or by words, which are looked for above."""
    constants = {
        node.value
        for path in SOURCES.rglob("*.py")
        if path != Path(catalog.__file__)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    told = constants | set(catalog.GENERAL.values())
    assert [entry.code for entry in catalog.ENTRIES if entry.words == ("",) and entry.code not in told] == []
