"""The skip list: what may skip, where, and that a list with a mistake is refused."""

import pytest

from support import skips

ALWAYS, NEVER = "always here", "never here"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> skips.Skips:
    monkeypatch.setitem(skips.CONDITIONS, ALWAYS, lambda: True)
    monkeypatch.setitem(skips.CONDITIONS, NEVER, lambda: False)
    return skips.Skips(f"# a comment\n\nneeds: a moon | {ALWAYS}\nneeds: a sun | {NEVER}\n")


def test_a_listed_skip_is_allowed_where_its_condition_holds(judged: skips.Skips) -> None:
    assert judged.judge("needs: a moon") == ""
    assert "does not hold" in judged.judge("needs: a sun")


@pytest.mark.parametrize("reason", ["", "flaky", "needs:", "needs: a star", "unconditional skip"])
def test_any_other_skip_is_refused(judged: skips.Skips, reason: str) -> None:
    assert judged.judge(reason) != ""


def test_a_missing_peer_may_skip_a_present_one_may_not(monkeypatch: pytest.MonkeyPatch, judged: skips.Skips) -> None:
    monkeypatch.setitem(skips.peers.TOOLS, "no-such-program", "no-such-package")
    monkeypatch.setitem(skips.peers.TOOLS, "sh", "dash")
    assert judged.judge("needs: no-such-program") == ""
    assert judged.judge("needs: sh") == "sh is here"


def test_an_entry_that_nobody_needs_is_stale(judged: skips.Skips) -> None:
    assert judged.stale() == ["needs: a moon"]
    judged.judge("needs: a moon")
    assert judged.stale() == []


@pytest.mark.parametrize("line", ["needs: a moon", "a moon | not root", "needs: a moon | on Sunday", "needs: a moon |"])
def test_a_malformed_list_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"skips\.txt:2"):
        skips.Skips(f"\n{line}\n")


def test_the_list_itself_is_well_formed() -> None:
    skips.Skips(skips.LIST.read_text())
