"""The ELF reader: real programs agree with their own loader, and no damage leads anywhere but to an error."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.image import elf
from orlop.image.closure import Closure
from orlop.image.elf import BrokenElf, Loader
from support import elves

REAL = [
    path for path in ("/bin/bash", "/bin/ls", "/usr/bin/tar", "/usr/bin/python3", "/bin/mount") if os.path.exists(path)
]
Write = Callable[[str, bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_a_file_says(write: Write, bits: int, order: str) -> None:
    data = elves.elf(
        bits=bits,
        order=order,
        machine=elves.EM_AARCH64,
        interpreter="/lib/ld.so",
        needed=("libc.so.6", "libé.so"),
        rpath="/a:/b",
        runpath="$ORIGIN/../lib",
        flags_1=elf.DF_1_NODEFLIB,
    )
    found = elf.read(write("program", data))
    assert found is not None
    assert (found.bits, found.order, found.machine, found.machine_name) == (bits, order, elves.EM_AARCH64, "arm64")
    assert (found.interpreter, found.needed) == ("/lib/ld.so", ("libc.so.6", "libé.so"))
    assert (found.rpath, found.runpath) == (("/a", "/b"), ("$ORIGIN/../lib",))
    assert not found.default_directories


def test_other_files_are_none(write: Write) -> None:
    for data in (b"", b"#!/bin/sh\n", b"\x7fEL", b"text" * 100):
        assert elf.read(write("file", data)) is None


@settings(max_examples=400)
@given(st.randoms(use_true_random=False), st.booleans(), st.integers(1, 8))
def test_damage_is_an_error_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, cut: bool, damage: int
) -> None:
    data = bytearray(elves.elf(interpreter="/lib/ld.so", needed=("libc.so.6",), runpath="/x"))
    for _ in range(damage):
        data[rng.randrange(4, len(data))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: rng.randrange(4, len(data))] if cut else data)
    try:
        found = elf.read(str(path))
    except BrokenElf as broken:
        assert str(broken)
        return
    assert found is None or len(found.needed) < 10


def test_machines(write: Write) -> None:
    native = elf.read(write("a", elves.elf()))
    foreign = elf.read(write("b", elves.elf(machine=elves.EM_S390, order=">")))
    small = elf.read(write("c", elves.elf(machine=elves.EM_386, bits=32)))
    assert native is not None
    assert foreign is not None
    assert small is not None
    assert native.runs_on("x86_64")
    assert small.runs_on("x86_64")
    assert not foreign.runs_on("x86_64")
    assert not native.runs_on("aarch64")
    assert native.runs_on("something-new")
    assert not native.same_kind(small)


def loader_says(program: str) -> set[str]:
    """Return what the dynamic loader itself would map, asked in its own way."""
    environment = {"LD_TRACE_LOADED_OBJECTS": "1"}
    listed = subprocess.run([program], env=environment, check=True, capture_output=True, text=True).stdout
    found = set()
    for line in listed.splitlines():
        path = line.partition("=>")[2].split("(")[0].strip() or line.split("(")[0].strip()
        if path.startswith("/"):
            found.add(os.path.realpath(path))
    return found


@pytest.mark.parametrize("program", REAL)
def test_the_closure_of_a_real_program_is_what_its_loader_maps(program: str) -> None:
    closure = Closure(faithful=False)
    closure.add_program(program)
    assert loader_says(program) <= set(closure.files.values())
    extra = set(closure.files.values()) - loader_says(program) - {os.path.realpath(program)}
    assert {os.path.basename(path) for path in extra} <= {"libnss_files.so.2", "libnss_dns.so.2", "ld.so.cache"}


# -- the loader's search --------------------------------------------------------------------------------------------


def find(path: str, name: str, rpaths: tuple[str, ...] = (), musl: bool = False) -> str | None:
    needs = elf.read(path)
    assert needs is not None
    return Loader().find(name, needs, path, rpaths, musl)


def test_the_order_of_the_search(write: Write, tmp_path: Path) -> None:
    library = elves.elf()
    mine, theirs = (write(f"{name}/libx.so", library) for name in ("mine", "theirs"))
    with_rpath = write("bin/rpath", elves.elf(rpath=str(tmp_path / "mine")))
    with_runpath = write("bin/runpath", elves.elf(rpath=str(tmp_path / "theirs"), runpath=f"{tmp_path}/mine"))
    origin = write("bin/origin", elves.elf(runpath="$ORIGIN/../mine:${ORIGIN}/nothing"))
    nodeflib = write("bin/nodeflib", elves.elf(flags_1=elf.DF_1_NODEFLIB))
    assert find(with_rpath, "libx.so", (str(tmp_path / "mine"),)) == mine
    assert find(with_rpath, "libx.so", (str(tmp_path / "theirs"),)) == theirs
    assert find(with_runpath, "libx.so", (str(tmp_path / "theirs"),)) == mine  # its RUNPATH switches all RPATHs off
    assert find(origin, "libx.so") == mine
    assert find(origin, "libnothing.so") is None
    assert find(nodeflib, "libc.so.6") is None
    assert find(origin, theirs) == theirs
    assert find(origin, "/missing/libx.so") is None


def test_libraries_of_another_machine_are_passed_over(write: Write, tmp_path: Path) -> None:
    write("wrong/libx.so", elves.elf(machine=elves.EM_AARCH64))
    write("text/libx.so", b"INPUT(libx.a)")
    write("broken/libx.so", b"\x7fELF" + bytes(60))
    right = write("right/libx.so", elves.elf())
    runpath = ":".join(f"{tmp_path}/{name}" for name in ("missing", "wrong", "text", "broken", "right"))
    assert find(write("program", elves.elf(runpath=runpath)), "libx.so") == right


def test_the_cache_is_read_and_survives_damage(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path(elf.LD_SO_CACHE)
    data = real.read_bytes() if real.exists() else b""
    library = write("special/libspecial.so.1", elves.elf())
    program = write("program", elves.elf(needed=("libspecial.so.1",)))
    conf = write("ld.so.conf", f"# comment\ninclude {tmp_path}/conf.d/*.conf\ninclude conf.d/none*\n".encode())
    write("conf.d/a.conf", f"{tmp_path}/special\nrelative\n".encode())
    monkeypatch.setattr(elf, "LD_SO_CONF", conf)
    rng = random.Random(1)
    for cut in (0, 10, 48, 50, 1000, len(data)):
        broken = bytearray(data[:cut])
        for _ in range(cut // 100):
            broken[rng.randrange(20, cut)] = rng.randrange(256)
        monkeypatch.setattr(elf, "LD_SO_CACHE", write("cache", bytes(broken)))
        find(program, "libc.so.6")
    monkeypatch.setattr(elf, "LD_SO_CACHE", str(tmp_path / "none"))
    loader = Loader()
    needs = elf.read(program)
    assert needs is not None
    assert loader.find("libspecial.so.1", needs, program, (), False) == library
    assert loader.used_cache


def test_an_include_that_includes_itself_ends(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = write("ld.so.conf", b"")
    Path(conf).write_text(f"include {conf}\ninclude {conf}\n/here\n")
    assert "/here" in elf._read_conf(conf, elf.CONF_DEPTH_MAX)


def test_musl_searches_its_own_directories(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = write("musl/libx.so", elves.elf())
    monkeypatch.setattr(elf, "_MUSL_DIRECTORIES", (str(tmp_path / "musl"),))
    program = write("program", elves.elf(interpreter="/lib/ld-musl-x86_64.so.1"))
    assert find(program, "libx.so", musl=True) == library
    assert find(program, "libx.so") is None
    assert elf.is_musl("/lib/ld-musl-x86_64.so.1")
    assert not elf.is_musl("/lib64/ld-linux-x86-64.so.2")
    assert elf.is_musl_own("libc.musl-x86_64.so.1")
