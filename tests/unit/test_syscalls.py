"""System call tables, held against the kernel headers of this machine (and in tests/contract against libseccomp)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orlop.linux import abi, syscalls

X86 = [Path("/usr/include/x86_64-linux-gnu/asm"), Path("/usr/include/asm")]
GENERIC = [Path("/usr/include/asm-generic")]
DEFINE = re.compile(r"#define\s+__NR_(\w+)\s+\(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?\s*$", re.M)


def header(directories, name):
    for directory in directories:
        if (directory / name).exists():
            return {call: int(number) for call, number in DEFINE.findall((directory / name).read_text())}
    pytest.skip("needs: the kernel's headers")


@pytest.mark.parametrize(
    ("architecture", "file"), [("x86_64", "unistd_64.h"), ("i386", "unistd_32.h"), ("x32", "unistd_x32.h")]
)
def test_the_tables_of_x86_hold_the_headers(architecture, file):
    if abi.MACHINE != "x86_64":
        pytest.skip("needs: x86-64")
    bit = syscalls.X32_SYSCALL_BIT if architecture == "x32" else 0
    listed = header(X86, file)
    table = syscalls.numbers(architecture)
    assert len(listed) > 300
    assert {name: table.get(name) for name in listed} == {name: number | bit for name, number in listed.items()}


@pytest.mark.parametrize("architecture", ["aarch64", "riscv64"])
def test_the_generic_tables_hold_the_generic_header(architecture):
    # The header also has what only 32-bit architectures have: times of 64 bits beside those of 32.
    listed = {
        name: number
        for name, number in header(GENERIC, "unistd.h").items()
        if name not in ("arch_specific_syscall", "syscalls") and not 403 <= number <= 423
    }
    table = syscalls.numbers(architecture)
    absent = {"renameat", "sync_file_range2"} if architecture == "riscv64" else {"sync_file_range2"}
    assert len(listed) > 250
    assert {name: table.get(name) for name in listed if name not in absent} == {
        name: number for name, number in listed.items() if name not in absent
    }


@pytest.mark.parametrize("architecture", syscalls.ARCHITECTURES)
def test_a_number_has_one_name(architecture):
    table = syscalls.numbers(architecture)
    assert len(set(table.values())) == len(table) == len(syscalls.names(architecture))
    assert all(name.isidentifier() for name in table)
    assert (min(table.values()) >= syscalls.X32_SYSCALL_BIT) == (architecture == "x32")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("clone3", 435), ("close_range", 436), ("openat2", 437), ("mount_setattr", 442), ("cachestat", 451),
        ("map_shadow_stack", 453), ("futex_requeue", 456), ("statmount", 457), ("listmount", 458), ("mseal", 462),
        ("setxattrat", 463), ("open_tree_attr", 467), ("file_getattr", 468), ("file_setattr", 469),
    ],
)  # fmt: skip
def test_calls_of_recent_kernels_are_there_everywhere(name, number):
    found = {each: syscalls.numbers(each)[name] & ~syscalls.X32_SYSCALL_BIT for each in syscalls.ARCHITECTURES}
    assert found == dict.fromkeys(syscalls.ARCHITECTURES, number)


def test_x32_has_its_own_numbers_where_longs_differ():
    x32, x86_64 = syscalls.numbers("x32"), syscalls.numbers("x86_64")
    assert x32["execve"] == syscalls.X32_SYSCALL_BIT | 520
    assert x32["read"] == syscalls.X32_SYSCALL_BIT | x86_64["read"]
    assert "uselib" in x86_64
    assert "uselib" not in x32


def test_riscv64_never_had_the_old_rename():
    assert "renameat" in syscalls.numbers("aarch64")
    assert {"renameat", "riscv_hwprobe"} & syscalls.numbers("riscv64").keys() == {"riscv_hwprobe"}


def test_the_numbers_that_the_kernel_layer_calls_are_the_same():
    table = syscalls.numbers({"arm64": "aarch64"}.get(abi.MACHINE, abi.MACHINE))
    assert {name: table[name] for name in abi.NUMBERS} == abi.NUMBERS


def test_an_architecture_without_a_table_is_an_error():
    with pytest.raises(KeyError):
        syscalls.numbers("pdp11")
