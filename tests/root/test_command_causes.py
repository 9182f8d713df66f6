"""Why a command can't be executed, computed: each cause with its own code, and the next step with the names in it."""

from __future__ import annotations

import shutil

import pytest

from support import container, elves
from support.engine import Environment

PROGRAMS = "sh sleep true".split()


@pytest.fixture(scope="module")
def orlop(tmp_path_factory):
    """One engine for all: nothing here outlives its command."""
    environment = Environment(tmp_path_factory.mktemp("engine") / "root")
    yield environment
    left = environment.close()
    assert not left, left


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = container.make_root(tmp_path_factory.mktemp("root"), PROGRAMS)
    directory.chmod(0o755)

    def put(name, data, mode=0o755):
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)

    put("bin/crlf", "#!/bin/sh\r\necho hi\r\n")
    put("bin/nointerpreter", "#!/no/such/interpreter -x\n")
    put("bin/closedinterpreter", "#!/bin/plain\n")
    put("bin/emptyline", "#!\n")
    put("bin/plain", "just text", 0o644)
    put("bin/text", "just text\n")
    put("bin/empty", b"")
    put("bin/arm", elves.elf(machine=elves.EM_AARCH64))
    put("bin/s390", elves.elf(machine=elves.EM_S390, order=">"))
    put("bin/noloader", elves.elf(interpreter="/lib/ld-none.so.1"))
    put("closed/true", (directory / "bin/true").read_bytes())
    (directory / "closed").chmod(0o700)
    put("bin/mine", (directory / "bin/true").read_bytes(), 0o700)
    (directory / "bin/loop").symlink_to("loop")
    (directory / "bin/dangling").symlink_to("/no/such/file")
    return directory


CASES = {
    "CR LF": (["crlf"], 126, 127, "E0305", ["CR LF"]),
    "interpreter that is missing": (["nointerpreter"], 127, 127, "E0306", ["/no/such/interpreter"]),
    "interpreter that is no program": (["closedinterpreter"], 126, 126, "E0307", ["/bin/plain"]),
    "first line without an interpreter": (["emptyline"], 126, 126, "E0310", ["no interpreter"]),
    "file without permission": (["/bin/plain"], 126, 126, "E0303", ["chmod +x /bin/plain"]),
    "text": (["text"], 126, 126, "E0310", ["#!/bin/sh"]),
    "empty file": (["empty"], 126, 126, "E0310", ["empty"]),
    "ARM program": (["arm"], 126, 126, "E0308", ["aarch64"]),
    "program of another byte order": (["s390"], 126, 126, "E0308", ["s390x"]),
    "missing loader": (["noloader"], 127, 127, "E0309", ["/lib/ld-none.so.1"]),
    "no such command": (["nosuch"], 127, 127, "E0301", ["nosuch", "PATH"]),
    "no such path": (["/no/such"], 127, 127, "E0301", ["/no/such"]),
    "dangling link": (["/bin/dangling"], 127, 127, "E0301", ["/bin/dangling"]),
    "directory": (["/bin"], 126, 126, "E0302", ["/bin"]),
    "somebody else's program": (["-u", "65534", "/bin/mine"], 126, 126, "E0303", ["/bin/mine"]),
    "closed directory": (["-u", "65534", "/closed/true"], 126, 126, "E0314", ["/closed", "chmod o+x /closed"]),
    "working directory that is missing": (["-w", "/bin/sh", "true"], 125, 127, "E0312", ["/bin/sh"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cause_is_computed_and_has_its_code(orlop, root, case):
    words, lowest, highest, code, expected = CASES[case]
    flags, command = (words[:2], words[2:]) if words[0].startswith("-") else ([], words)
    done = orlop("run", "--rm", *flags, "--rootfs", root, *command, check=False)
    assert lowest <= done.code <= highest, done
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Next: ") and code in last, done
    assert all(word in done.stderr for word in expected), done
    assert "unknown" not in done.stderr
    assert orlop("explain", code).stdout.startswith(code)


def test_too_many_arguments_are_told(orlop, root, tmp_path):
    """Each by itself passes a command line; all of them and the environment are more than the kernel takes."""
    variables = tmp_path / "variables"
    variables.write_text("".join(f"A{number}={'x' * 100_000}\n" for number in range(8)))
    words = ["x" * 100_000] * 16
    done = orlop("run", "--rm", "--env-file", variables, "--rootfs", root, "true", *words, check=False)
    assert done.code == 126 and "E0311" in done.stderr and "bytes" in done.stderr, done.stderr[-500:]


def test_a_file_system_without_execution_is_named(orlop, root, tmp_path):
    shutil.copy(root / "bin/true", tmp_path / "true")
    done = orlop("run", "--rm", "--mount", "type=tmpfs,dst=/mnt", "--rootfs", root, "sh", "-c", "true", check=False)
    assert done.code == 0, done
    orlop("run", "-d", "--name", "c", "--tmpfs", "/mnt:noexec", "--rootfs", root, "sleep", "1000")
    orlop("cp", tmp_path / "true", "c:/mnt/true")
    refused = orlop("exec", "c", "/mnt/true", check=False)
    assert refused.code == 126 and "noexec" in refused.stderr and "E03" in refused.stderr, refused
