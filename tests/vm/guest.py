"""Run a command in a virtual machine that has pure cgroup v2: this checkout, the host's Python, Debian's kernel.

    done = run(["python3", "-c", "print(open('/proc/self/cgroup').read())"], timeout_s=60)

The machine is emulated (TCG, no /dev/kvm): it boots in seconds and runs ten to twenty times slower than the host. It
has no disk and no network; its root is a tmpfs that can hold overlay mounts. The command is root in cgroup /session.

Invariant: qemu ends with `run`, or with the process that called it, whatever happens.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools import peers
from vm import initramfs, kernel

PYTHON = f"{initramfs.CHECKOUT}/.venv/bin/python"
MEMORY_MIB = 1024
CPUS = 2
MAIN_TIMEOUT_S = 3600.0
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
_POLL_S = 0.02
_CONSOLE_TAIL = 80
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# mitigations: emulation has nothing to mitigate. reboot=t: by a triple fault, at once. panic=-1: a panic ends qemu.
_KERNEL_WORDS = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off random.trust_cpu=on cgroup_no_v1=all audit=0"
# Ends this process's child with it, also by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
_PORTS = ("console", "stdout", "stderr", "outcome")


class GuestError(Exception):
    """The machine did not bring the command to its end (no boot, a panic); the text has the console."""


class Completed:
    """How a command ended in the guest; returncode is negative for a signal, as in subprocess."""

    def __init__(self, args: Sequence[str], returncode: int, output: Mapping[str, bytes], seconds: float) -> None:
        self.args = list(args)
        self.returncode = returncode
        self.stdout = output["stdout"].decode(errors="replace")
        self.stderr = output["stderr"].decode(errors="replace")
        self.console = output["console"].decode(errors="replace")
        self.seconds = seconds

    def __repr__(self) -> str:
        head = f"{self.args} -> {self.returncode} after {self.seconds:.1f} s"
        return f"{head}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}\n--- console\n{self.console}"


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    files: Mapping[str, bytes | Path] | None = None,
    env: Mapping[str, str] | None = None,
    modules: Sequence[str] = ("overlay",),
    stream: bool = False,
) -> Completed:
    """Boot, run the command in CHECKOUT, and return how it ended.

    files: path in the guest -> content, or a file of this machine; they are executable.
    env: added to a small environment of the guest's own.
    modules: kernel modules to load first; others of kernel.MODULES are loaded when the kernel asks for them.
    stream: write the console and the command's output to standard error as they come.

    Raises TimeoutError after timeout_s, from the start of qemu; GuestError; RuntimeError when there is no kernel.
    """
    job = {
        "command": list(command),
        "cwd": initramfs.CHECKOUT,
        "env": _ENVIRONMENT | dict(env or {}),
        "modules": list(modules),
    }
    linux = kernel.prepare()
    # A file without a name: whoever kills this process leaves only what the machine has said.
    with tempfile.TemporaryFile() as file, tempfile.TemporaryDirectory(prefix="orlop-vm-") as directory:
        with initramfs.base(linux).open("rb") as base:
            shutil.copyfileobj(base, file, 1024 * 1024)
        initramfs.checkout({**(files or {}), "/job.json": json.dumps(job).encode()}).write(file)
        file.flush()
        started = time.monotonic()
        machine = start(argv(linux, file.fileno(), Path(directory), _KERNEL_WORDS), file.fileno())
        output = follow(machine, Path(directory), timeout_s, stream)
    return Completed(command, status(output), output, time.monotonic() - started)


def run_tests(*arguments: str, timeout_s: float, stream: bool = False) -> Completed:
    """Run pytest in the guest: arguments are its own ("tests/root", "-k", ...)."""
    return run([PYTHON, "-m", "pytest", *arguments], timeout_s=timeout_s, stream=stream)


def argv(linux: kernel.Kernel, archive: int, directory: Path, kernel_words: str) -> list[str]:
    """Return the command of an emulator. archive: a descriptor of the initial file system; directory: for what the
    ports say, as `follow` reads it. Raises RuntimeError when there is none."""
    program = peers.find("qemu-system-x86_64")
    if program is None:
        raise RuntimeError("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")
    words = [str(program), "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", str(CPUS)]
    words += ["-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    for part in ("qemu", "seabios"):
        if (firmware := peers.DIRECTORY / "usr/share" / part).is_dir():
            words += ["-L", str(firmware)]
    words += ["-kernel", str(linux.image), "-initrd", f"/proc/self/fd/{archive}", "-append", kernel_words]
    for name in _PORTS:
        words += ["-chardev", f"file,id={name},path={directory / name}", "-serial", f"chardev:{name}"]
    return words


def start(words: list[str], archive: int) -> subprocess.Popen[bytes]:
    """Start an emulator that ends with this process."""
    command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, *words]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdin=null, stdout=pipe, stderr=subprocess.STDOUT, pass_fds=[archive])


def follow(qemu: subprocess.Popen[bytes], directory: Path, timeout_s: float, stream: bool) -> dict[str, bytes]:
    """Wait for qemu's end; return what each port said. Raises TimeoutError, with what the machine has said."""
    shown = dict.fromkeys(_PORTS[:3], 0)
    deadline = time.monotonic() + timeout_s
    try:
        while qemu.poll() is None:
            if time.monotonic() >= deadline:
                told = _told(_read(directory))
                raise TimeoutError(f"the guest did not end within {timeout_s} s\n{told}")
            if stream:
                _show(directory, shown)
            time.sleep(_POLL_S)
    finally:
        qemu.kill()
        words_of_qemu, _ = qemu.communicate()
    if stream:
        _show(directory, shown)
    output = _read(directory)
    output["console"] += words_of_qemu
    return output


def _read(directory: Path) -> dict[str, bytes]:
    output = {}
    for name in _PORTS:
        path = directory / name
        with path.open("rb") if path.exists() else open("/dev/null", "rb") as file:
            output[name] = file.read(OUTPUT_BYTES_MAX)
    return output


def _show(directory: Path, shown: dict[str, int]) -> None:
    for name, seen in shown.items():
        path = directory / name
        if path.exists():
            with path.open("rb") as file:
                file.seek(seen)
                data = file.read()
            shown[name] += len(data)
            sys.stderr.write(data.decode(errors="replace"))
    sys.stderr.flush()


def status(output: Mapping[str, bytes]) -> int:
    """Return the command's return code. Raises GuestError for a machine that told none."""
    try:
        outcome = json.loads(output["outcome"])
    except ValueError:
        raise GuestError(f"the guest ended without an outcome\n{_told(output)}") from None
    if "error" in outcome:
        raise GuestError(f"the guest's init failed: {outcome['error']}\n{_told(output)}")
    return int(outcome["status"])


def _told(output: Mapping[str, bytes]) -> str:
    parts = []
    for name in _PORTS[:3]:
        lines = output[name].decode(errors="replace").splitlines()[-_CONSOLE_TAIL:]
        parts.append("\n".join([f"--- {name}", *lines]))
    return "\n".join(parts)


def main(words: Sequence[str]) -> int:
    """`python -m vm.guest COMMAND...`: run it, show everything, return its status."""
    completed = run(words or ["uname", "-a"], timeout_s=MAIN_TIMEOUT_S, stream=True)
    print(f"{completed.args[0]} ended with {completed.returncode} after {completed.seconds:.1f} s", file=sys.stderr)
    return completed.returncode if completed.returncode >= 0 else 128 - completed.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
