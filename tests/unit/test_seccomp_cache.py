"""The program cache: right programs from right entries, and a compiler run for every entry that is not right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from orlop.engine.compile import seccomp_profile
from orlop.runtime import seccomp, seccomp_cache
from orlop.runtime.host import HostFacts
from orlop.runtime.seccomp_cache import ProgramCache
from orlop.spec.errors import Invalid
from orlop.spec.runtime import Seccomp, Syscall
from support.engine import CHECKOUT

PROFILE = Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(Syscall(names=("read",), action="SCMP_ACT_ALLOW"),))
OTHER = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(Syscall(names=("read",), action="SCMP_ACT_TRAP"),))
WRONG = Seccomp(default_action="SCMP_ACT_NONE")
# The default profile's program for every machine, by the generation of the compiler that made it.
GENERATIONS = {2: "54f7b38085875c159adbb274a4104aaddf74e201176757ebf2e6f21e89eedc31"}


@pytest.fixture
def compiled(monkeypatch):
    """The profiles that were really compiled, in order."""
    profiles = []
    real = seccomp.compile

    def compile(profile, machine):
        profiles.append(profile)
        return real(profile, machine)

    monkeypatch.setattr(seccomp, "compile", compile)
    return profiles


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "programs")


def entry(directory):
    (name,) = os.listdir(directory)
    return f"{directory}/{name}"


def test_a_program_is_compiled_once_on_a_machine(compiled, directory):
    programs = [ProgramCache(directory).compile(PROFILE, "x86_64") for _ in range(3)]
    assert programs == [seccomp.compile(PROFILE, "x86_64")] * 3
    assert compiled == [PROFILE, PROFILE]  # the second is the line above
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert os.stat(entry(directory)).st_mode & 0o777 == 0o600


def test_profiles_and_machines_have_entries_of_their_own(compiled, directory):
    cache = ProgramCache(directory)
    programs = {cache.compile(PROFILE, "x86_64"), cache.compile(OTHER, "x86_64"), cache.compile(PROFILE, "aarch64")}
    assert len(programs) == len(os.listdir(directory)) == 3


def test_another_generation_has_entries_of_its_own(compiled, directory, monkeypatch):
    ProgramCache(directory).compile(PROFILE, "x86_64")
    monkeypatch.setattr(seccomp_cache, "GENERATION", seccomp_cache.GENERATION + 1)
    ProgramCache(directory).compile(PROFILE, "x86_64")
    assert compiled == [PROFILE, PROFILE]


def broken_entries():
    program = seccomp.compile(OTHER, "x86_64")
    key = b"k" * 32

    def whole(program, key=None, magic=seccomp_cache._MAGIC):
        return lambda name: (
            magic + (key or bytes.fromhex(name)) + hashlib.blake2b(program, digest_size=32).digest() + program
        )

    return {
        "empty": lambda name: b"",
        "cut short": lambda name: whole(program)(name)[:-1],
        "cut in the head": lambda name: whole(program)(name)[:40],
        "longer": lambda name: whole(program)(name) + b"\0" * 8,
        "of another profile": whole(program, key),
        "of another format": whole(program, magic=b"orlop seccomp program2"),
        "a flipped bit": lambda name: whole(program)(name)[:-1] + b"\1",
        "half an instruction": whole(b"\0" * 12),
        "an empty program": whole(b""),
        "huge": whole(b"\x06\0\0\0\0\0\xff\x7f" * 5000),
    }


@pytest.mark.parametrize("kind", broken_entries())
def test_a_broken_entry_is_ignored_and_replaced(compiled, directory, kind):
    right = ProgramCache(directory).compile(PROFILE, "x86_64")
    path = entry(directory)
    with open(path, "wb") as file:
        file.write(broken_entries()[kind](os.path.basename(path)))
    compiled.clear()
    assert ProgramCache(directory).compile(PROFILE, "x86_64") == right
    assert compiled[-1] == PROFILE
    compiled.clear()
    assert ProgramCache(directory).compile(PROFILE, "x86_64") == right
    assert compiled == []


def test_an_entry_that_others_may_write_is_ignored(compiled, directory):
    ProgramCache(directory).compile(PROFILE, "x86_64")
    os.chmod(entry(directory), 0o666)
    ProgramCache(directory).compile(PROFILE, "x86_64")
    assert compiled == [PROFILE, PROFILE]


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_an_entry_that_is_no_file_is_ignored(compiled, directory, tmp_path, kind):
    right = ProgramCache(directory).compile(PROFILE, "x86_64")
    path = entry(directory)
    os.rename(path, tmp_path / "elsewhere")
    if kind == "symlink":
        os.symlink(tmp_path / "elsewhere", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mkdir(path)
    compiled.clear()
    assert ProgramCache(directory).compile(PROFILE, "x86_64") == right
    assert compiled == [PROFILE]


@pytest.mark.parametrize("directory", ["/proc/self/nowhere", "/dev/null/programs"])
def test_a_place_that_cannot_be_written_means_no_cache(compiled, directory):
    assert ProgramCache(directory).compile(PROFILE, "x86_64") == seccomp.compile(PROFILE, "x86_64")


def test_no_half_written_entry_is_left(directory):
    ProgramCache(directory).compile(PROFILE, "x86_64")
    assert all(len(name) == 64 for name in os.listdir(directory))


ASKING = Seccomp(
    default_action="SCMP_ACT_ALLOW",
    syscalls=(*OTHER.syscalls, Syscall(names=("mount",), action="SCMP_ACT_NOTIFY")),
)


def document(profile):
    return {"linux": {"seccomp": profile.to_json()}}


@pytest.mark.parametrize("profile", [PROFILE, OTHER, ASKING], ids=["allows", "traps", "asks"])
def test_a_document_whose_program_is_kept_is_not_read_again(compiled, directory, profile):
    whole = document(profile)
    program = ProgramCache(directory).compiler(whole, "x86_64")(profile, "x86_64")
    assert (program, whole) == (seccomp.compile(profile, "x86_64"), document(profile))
    compiled.clear()
    kept = ProgramCache(directory).compiler(whole, "x86_64")
    left = Seccomp.from_json(whole["linux"]["seccomp"])
    assert kept(left, "x86_64") == program
    assert left == profile.replace(syscalls=tuple(one for one in profile.syscalls if one.action == "SCMP_ACT_NOTIFY"))
    assert compiled == []


def test_documents_and_machines_have_entries_of_their_own(compiled, directory):
    cache = ProgramCache(directory)
    cache.compiler(document(PROFILE), "x86_64")(PROFILE, "x86_64")
    for profile, machine in ((OTHER, "x86_64"), (PROFILE.replace(flags=("SECCOMP_FILTER_FLAG_LOG",)), "x86_64"),
                             (PROFILE, "aarch64")):  # fmt: skip
        assert cache.compiler(document(profile), machine)(profile, machine) == seccomp.compile(profile, machine)
    assert len(os.listdir(directory)) == 4


@pytest.mark.parametrize(
    "broken",
    [None, [], {}, {"linux": []}, {"linux": {"seccomp": []}}, {"linux": {"seccomp": {"syscalls": {"names": 1}}}},
     {"linux": {"seccomp": {"syscalls": [[], "x"]}}}, {"linux": {"seccomp": {"syscalls": [{"names": "\ud800"}]}}}],
)  # fmt: skip
def test_a_broken_document_is_left_to_its_reader(compiled, directory, broken):
    ProgramCache(directory).compiler(broken, "x86_64")(PROFILE, "x86_64")
    assert compiled == [PROFILE]


def test_a_wrong_profile_is_not_remembered(directory):
    for _ in range(2):
        with pytest.raises(Invalid):
            ProgramCache(directory).compile(WRONG, "x86_64")
        told = document(WRONG.replace(syscalls=PROFILE.syscalls))
        with pytest.raises(Invalid):
            ProgramCache(directory).compiler(told, "x86_64")(WRONG, "x86_64")
    assert not os.path.exists(directory)


def test_a_hit_loads_no_compiler_and_no_openssl(directory):
    code = f"""
import sys
sys.path.append({str(CHECKOUT / "src")!r})
from orlop.runtime.seccomp_cache import ProgramCache
from orlop.spec.runtime import Seccomp, Syscall
profile = Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(Syscall(names=("read",), action="SCMP_ACT_ALLOW"),))
print(len(ProgramCache({directory!r}).compile(profile, "x86_64")), *sys.modules)
"""
    for heavy in (True, False):
        told = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
        ).stdout
        assert ("orlop.runtime.seccomp" in told.split()) is heavy
        assert "hashlib" not in told.split()


def test_the_generation_is_raised_when_programs_change():
    digest = hashlib.sha256()
    for machine in ("x86_64", "aarch64", "riscv64"):
        host = HostFacts(machine=machine, kernel=(6, 18), cap_last=40, cap_bounding=0, cap_effective=0)
        digest.update(seccomp.compile(seccomp_profile.default(("CAP_SYS_CHROOT",), host), machine))
    found = {seccomp_cache.GENERATION: digest.hexdigest()}
    assert found.items() <= GENERATIONS.items(), f"raise seccomp_cache.GENERATION, and note {found} in GENERATIONS"
