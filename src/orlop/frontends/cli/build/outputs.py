"""--output, --load, --push and --annotation: what the engine is asked for, and where its archives go here.

A file is written beside its name and renamed when the build has ended well; a folder is filled while the archive comes.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack

from ....build.output import wanted
from ....build.output.wanted import Output
from ....spec.errors import Invalid, Unavailable
from ..archives import output_path
from ..flags import Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

MODES = ("copy", "delete")
STDOUT = "-"


class Destinations:
    """All outputs of a build, opened. outputs: for the request; sinks: the descriptors that go with it."""

    def __init__(self, options: Options) -> None:
        self.outputs: tuple[Output, ...] = ()
        self.sinks: list[int] = []
        self._finish: list[_File | _Folder] = []
        self._held = ExitStack()
        try:
            self.outputs = tuple(self._opened(*one) for one in parse(options))
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def finish(self) -> None:
        """The build has ended well: files get their names, folders are whole. Raises Unavailable, Invalid."""
        for one in self._finish:
            one.finish()

    def _opened(self, output: Output, dest: str, mode: str) -> Output:
        if output.path or not dest:
            return output
        if dest == STDOUT:
            sink = 1
        else:
            made = _Folder(dest, mode) if output.type == wanted.LOCAL else _File(dest)
            self._held.callback(made.close)
            self._finish.append(made)
            sink = made.sink
        self.sinks.append(sink)
        return output.replace(sink=len(self.sinks) - 1)


def parse(options: Options) -> list[tuple[Output, str, str]]:
    """Return what is asked for, each with its place here ("" is none) and how a folder is written.

    Raises UsageError, Invalid, Unsupported.
    """
    annotations = tuple(one for text in options["annotation"] for one in wanted.of_flag(text))
    given = [wanted.fields_of(text) for text in options["output"]]
    given += [{"type": "registry"}] if options["push"] else []
    given += [{"type": "docker"}] if options["load"] else []
    if annotations and not given:
        given = [{"type": "image"}]
    found = []
    for fields in given:
        output = wanted.parse(fields)
        if output.type in (wanted.IMAGE, wanted.OCI, wanted.DOCKER):
            output = output.replace(annotations=(*output.annotations, *annotations))
        dest, mode = fields.get("dest", ""), fields.get("mode", MODES[0])
        if mode not in MODES:
            raise UsageError(f"invalid mode {mode}", f"one of {', '.join(MODES)}")
        found.append((_placed(output, fields, dest), _dest(output, dest), mode))
    return found


def _placed(output: Output, fields: dict[str, str], dest: str) -> Output:
    """Return an output with the folder of its layout, where it is to be one (tar=false)."""
    if output.type not in (wanted.OCI, wanted.DOCKER) or fields.get("tar", "true") != "false":
        return output
    if not dest or dest == STDOUT:
        raise UsageError(f"dest is required for {output.type} with tar=false", f"write type={output.type},dest=DIR")
    return output.replace(path=os.path.abspath(dest))


def _dest(output: Output, dest: str) -> str:
    if output.type == wanted.LOCAL and not dest:
        raise UsageError("dest is required for local exporter", "write -o type=local,dest=DIR")
    if output.type in (wanted.OCI, wanted.TAR):
        dest = dest or STDOUT
    if dest == STDOUT and os.isatty(1):
        raise Invalid("build", "the output", "dest file is required when writing to a terminal", hint="redirect it")
    return dest


class _File:
    """An archive that gets its name at the end. Close it: what has no name goes."""

    def __init__(self, dest: str) -> None:
        self._dest = dest = output_path(dest, "build")
        self._temporary = f"{dest}.{os.getpid()}"
        try:
            self.sink = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as wrong:
            raise Unavailable("write", dest, wrong.strerror or str(wrong)) from None

    def finish(self) -> None:
        os.rename(self._temporary, self._dest)
        self._temporary = ""

    def close(self) -> None:
        os.close(self.sink)
        if self._temporary:
            os.unlink(self._temporary)


class _Folder:
    """A folder that is filled from an archive, made where it is missing. mode delete: nothing else stays in it."""

    def __init__(self, dest: str, mode: str) -> None:
        self._dest = dest
        self._deletes = mode == MODES[1]
        self._failure: BaseException | None = None
        self._place = f"{dest.rstrip('/')}.{os.getpid()}" if self._deletes else dest
        try:
            os.makedirs(self._place, exist_ok=True)
            self._target = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as wrong:
            raise Unavailable("write", dest, wrong.strerror or str(wrong)) from None
        self._reading, self.sink = os.pipe()
        self._thread = threading.Thread(target=self._extract, daemon=True)
        self._thread.start()

    def _extract(self) -> None:
        from ....content.compression import Decompressed
        from ....snapshot.extract import Extraction, Rules
        from ....spec.tar import Limits, Reader

        try:
            stream = Decompressed(lambda count: os.read(self._reading, count), "the image's files")
            rules = Rules(layer=False, owner=None if os.geteuid() == 0 else (-1, -1))
            limits = Limits(entries=2**40, total_bytes=2**60)
            Extraction(self._target, -1, self._dest, rules=rules).run(Reader(stream.read, self._dest, limits))
        except BaseException as wrong:  # of this thread: `finish` raises it
            self._failure = wrong
        finally:
            os.close(self._reading)  # then nobody waits for somebody who reads

    def _end(self) -> None:
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1
            self._thread.join()

    def finish(self) -> None:
        self._end()
        if self._failure is not None:
            raise self._failure
        if self._deletes:
            if os.path.isdir(self._dest):
                shutil.rmtree(self._dest)
            os.rename(self._place, self._dest)

    def close(self) -> None:
        self._end()
        os.close(self._target)
        if self._deletes and os.path.isdir(self._place):
            shutil.rmtree(self._place)
