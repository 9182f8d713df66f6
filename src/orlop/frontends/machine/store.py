"""Machines on disk, and whether they run.

    $ORLOP_ROOT/machines/NAME/  machine.json  kernel  root.cpio  disk.img (sparse)  console.log   (writers: init, owner)
    $ORLOP_RUN/machines/NAME/   lock          held by the owner and its emulator, with the owner's pid and start time
                                docker.sock shell.sock                                            (writer: the owner)

A machine is on as long as anybody holds its lock (flock(2)): who was killed holds none. It comes and goes by rename.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from ...linux import path, pidfd
from ...spec import jsonio
from ...spec.errors import Conflict, Invalid, NotFound, OrlopError, Unavailable
from ...spec.paths import Paths
from ...spec.record import Record
from ..native import rundir

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
RECORD, LOCK, DOCKER, SHELL = "machine.json", "lock", "docker.sock", "shell.sock"
RECORD_BYTES_MAX = 64 * 1024
STOP_S = 40.0
_POLL_S = 0.05
_SUN_PATH_MAX = 107


class Machine(Record):
    """machine.json. accelerator: auto, kvm or tcg. network: none or user. kernel: its version."""

    name: str
    created: str
    cpus: int
    memory_bytes: int
    disk_bytes: int
    accelerator: str
    network: str
    kernel: str


class Place:
    """The directories of one machine; nothing need be there."""

    def __init__(self, paths: Paths, name: str) -> None:
        if not NAME.fullmatch(name):
            cause = "it is not 1 to 32 of a-z, 0-9 and -, the first a letter or a digit"
            raise Invalid("use", f"machine {name}", cause, hint="choose another name")
        self.name = name
        self.data = Path(paths.root, "machines", name)
        self.run = Path(paths.run, "machines", name)

    @property
    def docker(self) -> Path:
        return self.run / DOCKER

    @property
    def shell(self) -> Path:
        return self.run / SHELL

    def check_length(self) -> None:
        """Raise Invalid when clients could not name the machine's sockets."""
        if len(os.fsencode(self.docker)) > _SUN_PATH_MAX:
            cause = f"the path of its socket has more than {_SUN_PATH_MAX} bytes: {self.docker}"
            raise Invalid("make", f"machine {self.name}", cause, hint="choose a shorter name, or a shorter ORLOP_RUN")

    def read(self) -> Machine:
        """Return its record. Raises NotFound, Invalid."""
        name = str(self.data / RECORD)
        try:
            data = path.read_file(name, RECORD_BYTES_MAX)
        except FileNotFoundError:
            hint = "list machines with: orlop machine ls"
            raise NotFound("find", f"machine {self.name}", f"there is no machine {self.name}", hint=hint) from None
        except OSError as wrong:
            raise Unavailable("read", name, wrong.strerror or str(wrong)) from None
        return Machine.from_json(jsonio.parse(data, name), name)

    def lock(self) -> int | None:
        """Return a descriptor that holds the machine, None while another one does. Makes the run directory."""
        for directory in (self.run.parents[1], self.run.parent, self.run):
            os.close(rundir.open_private(str(directory), create=True))
        fd = os.open(self.run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def is_on(self) -> bool:
        """Return whether an owner or an emulator is there."""
        try:
            fd = os.open(self.run / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def owner(self) -> int | None:
        """Return a pidfd of the owner, None when it is gone."""
        try:
            words = path.read_file(str(self.run / LOCK), 128).split()
            return pidfd.pidfd_of(int(words[0]), int(words[1]))
        except (OSError, ValueError, IndexError):
            return None

    def signal_until_off(self, number: int, timeout_s: float = STOP_S) -> bool:
        """Send the owner a signal and wait for the machine's end. Returns whether it is off."""
        owner = self.owner()
        if owner is not None:
            try:
                pidfd.pidfd_send_signal(owner, number)
            except ProcessLookupError:
                pass
            finally:
                os.close(owner)
        deadline = time.monotonic() + timeout_s
        while self.is_on():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def names(paths: Paths) -> list[str]:
    """Return the names of all machines, sorted."""
    directory = Path(paths.root, "machines")
    try:
        return sorted(name for name in os.listdir(directory) if NAME.fullmatch(name))
    except FileNotFoundError:
        return []


class Draft:
    """A directory in which a machine is made; `finish` gives it its name, else nothing of it remains."""

    def __init__(self, place: Place) -> None:
        self._place = place
        os.close(rundir.open_private(str(place.data.parents[1]), create=True))
        os.close(rundir.open_private(str(place.data.parent), create=True))
        self.directory = place.data.parent / f".new-{secrets.token_hex(4)}"

    def __enter__(self) -> "Draft":
        self.directory.mkdir(0o700)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def finish(self, machine: Machine) -> None:
        """Write the record and make the machine appear. Raises Conflict when there is one of this name."""
        (self.directory / RECORD).write_bytes(jsonio.dump(machine.to_json()))
        for name in os.listdir(self.directory):
            with open(self.directory / name, "rb") as file:
                os.fsync(file.fileno())
        try:
            os.rename(self.directory, self._place.data)
        except OSError:
            raise _exists(machine.name) from None


def _exists(name: str) -> OrlopError:
    return Conflict("make", f"machine {name}", "there is one already", hint=f"remove it: orlop machine rm {name}")


def check_new(place: Place) -> None:
    """Raise Conflict when the name is taken, Invalid when the paths are too long."""
    if place.data.exists():
        raise _exists(place.name)
    place.check_length()


def remove(place: Place, lock: int) -> None:
    """Remove a machine that is off and held by this lock, which is closed."""
    gone = place.data.parent / f".gone-{secrets.token_hex(4)}"
    os.rename(place.data, gone)
    shutil.rmtree(gone, ignore_errors=True)
    shutil.rmtree(place.run, ignore_errors=True)
    os.close(lock)


def sweep(paths: Paths) -> None:
    """Remove what was being made or removed by somebody who was killed more than a day ago."""
    directory = Path(paths.root, "machines")
    for name in os.listdir(directory) if directory.is_dir() else ():
        place = directory / name
        if name.startswith((".new-", ".gone-")) and time.time() - place.lstat().st_mtime > 86400:
            shutil.rmtree(place, ignore_errors=True)
