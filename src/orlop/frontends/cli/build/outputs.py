"""--output, --load and --push: where what was built goes. The engine has it as an image; here it is carried on."""

from __future__ import annotations

import os

from ....spec.errors import Invalid, Unavailable
from ..flags import Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....build.request import BuildRequest
    from ...native.client import Engine

TYPES = ("image", "registry", "docker", "oci", "tar", "local", "cacheonly")


class Output:
    """One --output. fields: what was written; dest: a path, "-" for standard output, "" for the store."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        self.type = fields["type"]
        self.dest = fields.get("dest", "")


def attributes(text: str) -> dict[str, str]:
    """Return the fields of one --output; a path alone is a folder, "-" an archive on standard output."""
    import csv

    if text == "-":
        return {"type": "tar", "dest": "-"}
    if "=" not in text:
        return {"type": "local", "dest": text}
    fields: dict[str, str] = {}
    for part in next(csv.reader([text])):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"invalid output {text}: {part} is not key=value")
        fields[{"dst": "dest"}.get(name, name)] = value
    if fields.get("type", "") not in TYPES:
        raise UsageError(f"unsupported output type: {fields.get('type', '')}", f"one of {', '.join(TYPES)}")
    return fields


def parse(options: Options) -> list[Output]:
    """Return where the result goes beside the store. Raises UsageError."""
    found = [Output(attributes(text)) for text in options["output"]]
    if options["push"]:
        found.append(Output({"type": "registry"}))
    for output in found:
        if output.type in ("oci", "tar", "docker") and not output.dest and output.type != "docker":
            output.dest = "-"
        if output.type == "local" and not output.dest:
            raise UsageError("dest is required for local exporter", "write -o type=local,dest=DIR")
        if output.dest == "-" and os.isatty(1):
            raise Invalid("build", "the output", "dest file is required when writing to a terminal", hint="redirect it")
    return found


def write(engine: Engine, wanted: list[Output], result: dict[str, Any], request: BuildRequest) -> None:
    """Carry an image where it shall go. Raises Unavailable, Denied."""
    names = list(request.tags) or [str(result["id"])]
    for output in wanted:
        if output.type == "registry" or (output.type == "image" and output.fields.get("push") == "true"):
            _push(engine, request)
        elif output.type in ("docker", "oci") and output.dest:
            _to_file(output.dest, lambda fd: engine.call("images.save", {"images": names, "platform": ""}, [fd]))
        elif output.type == "tar":
            args = {"image": str(result["id"])}
            _to_file(output.dest, lambda fd, args=args: engine.call("build.export", args, [fd]))
        elif output.type == "local":
            _to_folder(engine, output.dest, str(result["id"]))


def _push(engine: Engine, request: BuildRequest) -> None:
    from ....spec.reference import Reference
    from ..credentials import for_registry

    if not request.tags:
        raise Invalid("push", "the image", "tag is needed when pushing to registry", hint="name it with -t")
    for tag in request.tags:
        reference = Reference.parse(tag).tagged()
        args: dict[str, object] = {"image": str(reference)}
        credentials = for_registry(reference.domain).to_json()
        if credentials:
            args["credentials"] = credentials
        for _ in engine.messages("images.push", {"request": args}):
            pass


def _to_file(dest: str, act: Any) -> None:
    if dest == "-":
        act(1)
        return
    temporary = f"{dest}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as wrong:
        raise Unavailable("write", dest, wrong.strerror or str(wrong)) from None
    try:
        act(fd)
        os.rename(temporary, dest)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _to_folder(engine: Engine, dest: str, image: str) -> None:
    """Extract the image's files into a folder, which is made where it is missing."""
    import threading

    from ....content.compression import Decompressed
    from ....snapshot.extract import Extraction, Rules
    from ....spec.tar import Limits, Reader

    try:
        os.makedirs(dest, exist_ok=True)
        target = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as wrong:
        raise Unavailable("write", dest, wrong.strerror or str(wrong)) from None
    reading, writing = os.pipe()
    failure: list[BaseException] = []

    def extract() -> None:
        try:
            stream = Decompressed(lambda count: os.read(reading, count), "the image's files")
            rules = Rules(layer=False, owner=None if os.geteuid() == 0 else (-1, -1))
            limits = Limits(entries=2**40, total_bytes=2**60)
            Extraction(target, -1, dest, rules=rules).run(Reader(stream.read, dest, limits))
        except BaseException as wrong:
            failure.append(wrong)
        finally:
            os.close(reading)

    thread = threading.Thread(target=extract)
    thread.start()
    try:
        engine.call("build.export", {"image": image}, [writing])
    finally:
        os.close(writing)
        thread.join()
        os.close(target)
    if failure:
        raise failure[0]
