"""Platforms: how they are written, and what runs what."""

from __future__ import annotations

import pytest

from orlop.spec.errors import Invalid
from orlop.spec.platform import Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AArch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm"),
        ("linux/arm/7", "linux/arm"),
        ("linux/armhf", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i686", "linux/386"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("windows/amd64", "windows/amd64"),
        ("arm64", "linux/arm64"),  # as containerd reads one part alone
        ("armhf", "linux/arm"),
    ],
)
def test_spellings(text: str, expected: str) -> None:
    assert str(Platform.parse(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "plan9x", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "l" * 200 + "/a", "a/\0"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(Invalid, match=r"unknown operating system or architecture|cannot parse platform specifier"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("machine", "image", "runs"),
    [
        ("x86_64", "linux/amd64", True),
        ("x86_64", "linux/arm64", False),
        ("x86_64", "windows/amd64", False),
        ("x86_64", "linux/amd64/v3", False),
        ("aarch64", "linux/arm64/v8", True),
        ("armv7l", "linux/arm/v6", True),
        ("armv6l", "linux/arm/v7", False),
        ("armv7l", "linux/arm", True),
    ],
)
def test_what_runs_where(machine: str, image: str, runs: bool) -> None:
    assert Platform.of_machine(machine).runs(Platform.parse(image)) is runs
