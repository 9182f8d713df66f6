"""Which platforms the kernel emulates, as binfmt_misc tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orlop.build.solver.foreign import is_emulated
from orlop.spec.platform import Platform

AARCH64 = "7f454c460201010000000000000000000200b700"
S390X = "7f454c4602020100000000000000000000020016"


def entry(magic: str, flags: str = "OCF", state: str = "enabled", offset: str = "0") -> str:
    return f"{state}\ninterpreter /usr/libexec/qemu\nflags: {flags}\noffset {offset}\nmagic {magic}\nmask ff\n"


@pytest.mark.parametrize(
    ("text", "platform", "expected"),
    [
        (entry(AARCH64), "linux/arm64", True),
        (entry(AARCH64), "linux/arm64/v8", True),
        (entry(AARCH64), "linux/arm", False),
        (entry(AARCH64), "windows/arm64", False),
        (entry(AARCH64, state="disabled"), "linux/arm64", False),
        (entry(AARCH64, flags="OC"), "linux/arm64", False),  # the emulator's path would be looked for in the container
        (entry(AARCH64, offset="4"), "linux/arm64", False),
        (entry(S390X), "linux/s390x", True),
        ("enabled\ninterpreter /usr/bin/python3\nflags: F\nextension .pyc\n", "linux/arm64", False),
        ("", "linux/arm64", False),
        ("enabled\nflags: F\noffset 0\nmagic zz\n", "linux/arm64", False),
    ],
)
def test_entries_of_binfmt_misc(tmp_path: Path, text: str, platform: str, expected: bool) -> None:
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "qemu").write_text(text)
    assert is_emulated(Platform.parse(platform), str(tmp_path)) is expected


def test_a_machine_without_binfmt_misc(tmp_path: Path) -> None:
    assert not is_emulated(Platform.parse("linux/arm64"), str(tmp_path / "nothing"))
