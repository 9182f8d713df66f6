"""RUN for another platform, by Debian's qemu-user: executed where binfmt_misc knows it, an error before it where not.

The emulator is registered in a user namespace of the test's own (kernel 6.7): nobody else's programs are run by it.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.linux import abi
from support import skips
from support.engine import COMMAND, Environment

PROGRAM = """\
.global _start
_start:
    mov x0, #-100   // AT_FDCWD
    adr x1, path
    mov x2, #0x241  // O_WRONLY|O_CREAT|O_TRUNC
    mov x3, #0644
    mov x8, #56     // openat
    svc #0
    adr x1, text
    mov x2, #6
    mov x8, #64     // write
    svc #0
    mov x0, #0
    mov x8, #93     // exit
    svc #0
path: .asciz "/made"
text: .ascii "arm64\\n"
"""
MAGIC = "".join(f"\\x{byte:02x}" for byte in bytes.fromhex("7f454c460201010000000000000000000200b700"))
MASK = "".join(f"\\x{byte:02x}" for byte in bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff"))
DOCKERFILE = 'FROM arm AS made\nRUN ["/p"]\nFROM scratch\nARG TARGETARCH\nCOPY --from=made /made /$TARGETARCH\n'


@pytest.fixture
def context(tmp_path: Path, peer: Callable[[str], Path]) -> Path:
    if abi.MACHINE != "x86_64":
        pytest.skip("needs: x86-64")
    if skips.CONDITIONS["kernel before 6.7"]():
        pytest.skip("needs: binfmt_misc in user namespaces")
    directory = tmp_path / "context"
    directory.mkdir()
    (tmp_path / "p.s").write_text(PROGRAM)
    assembler = peer("aarch64-linux-gnu-as")
    subprocess.run([assembler, "-o", tmp_path / "p.o", tmp_path / "p.s"], check=True)
    linker = assembler.with_name("aarch64-linux-gnu-ld")
    subprocess.run([linker, "-o", tmp_path / "p", tmp_path / "p.o"], check=True)
    with tarfile.open(tmp_path / "arm.tar", "w") as archive:
        archive.add(tmp_path / "p", arcname="p")
    (directory / "Dockerfile").write_text(DOCKERFILE)
    return directory


def test_a_step_of_another_platform_is_executed_by_the_emulator(
    orlop: Environment, context: Path, tmp_path: Path, peer: Callable[[str], Path]
) -> None:
    words = "--progress=plain --network=none --platform=linux/arm64"
    script = f"""set -e
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        {COMMAND} import --platform linux/arm64 {tmp_path}/arm.tar arm
        ! {COMMAND} build {words} {context} || exit 9
        printf '%s' ':arm:M::{MAGIC}:{MASK}:{peer("qemu-aarch64-static")}:F' > /proc/sys/fs/binfmt_misc/register
        {COMMAND} build {words} -o type=local,dest={tmp_path}/out {context}"""
    argv = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c", script]
    done = orlop.inside(
        lambda: subprocess.run(argv, env=orlop.variables, capture_output=True, text=True, timeout=110, check=False)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it is a command of linux/arm64, and this machine (linux/amd64) executes none of those" in done.stderr
    assert "apt-get install qemu-user-static" in done.stderr
    assert (tmp_path / "out/arm64").read_text() == "arm64\n"
    assert not os.path.exists("/proc/sys/fs/binfmt_misc/arm"), "the machine's own table is as it was"
