"""Every parser that reads what others wrote, against inputs that nobody would write.

A parser may take an input or refuse it with an error for the user; it may not fail in another way, hang, or, when it
takes an input that it can also write, write something that it reads differently. `./dev fuzz` goes on for longer and
with a new seed; inputs that once broke a parser lie in tests/fuzz/regressions, named after their target.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
import zlib
from pathlib import Path

import pytest

from orlop.content.compression import Decompressed
from orlop.frontends.cli.template import Template
from orlop.image import changes, elf
from orlop.spec import attach, image, jsonio, tar
from orlop.spec.container import ContainerRequest, ExecRequest
from orlop.spec.digest import Digest
from orlop.spec.errors import OrlopError
from orlop.spec.platform import Platform
from orlop.spec.record import Record
from orlop.spec.reference import Reference
from orlop.spec.runtime import Spec
from orlop.spec.task import ExitRecord, StartTask, TaskStatus
from support.fuzzing import Target, each

HEX = "ab" * 32
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{HEX}", "size": 7}
MANIFEST = {"schemaVersion": 2, "mediaType": image.OCI_MANIFEST, "config": DESCRIPTOR, "layers": [DESCRIPTOR]}
TEMPLATE = b'{{range $i, $c := .Names}}{{if and (eq $i 1) $.Id}}{{json .}}\t{{else}}{{printf "%-5s" $c}}{{end}}{{end}}'


def _record(cls: type[Record]) -> object:
    def parse(data: bytes) -> None:
        value = cls.from_json(jsonio.parse(data, "the input"), "the input")
        again = cls.from_json(jsonio.parse(jsonio.dump(value.to_json()), "what was written"), "what was written")
        assert again == value

    return parse


def _json(data: bytes) -> None:
    value = jsonio.parse(data, "the input")
    assert jsonio.parse(jsonio.dump(value), "what was written") == value


def _text(parse: object) -> object:
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def _reference(text: str) -> None:
    reference = Reference.parse(text)
    assert Reference.parse(reference.familiar) == Reference.parse(str(reference)) == reference


def _attach(data: bytes) -> None:
    frames = attach.Decoder().feed(data)
    pieces = attach.Decoder()
    assert [one for at in range(0, len(data), 3) for one in pieces.feed(data[at : at + 3])] == frames


def _tar(data: bytes) -> None:
    reader = tar.Reader(io.BytesIO(data).read, "the input", tar.Limits(entries=100, total_bytes=1 << 20))
    for _ in reader:
        for _ in reader.data():
            pass


def _compressed(data: bytes) -> None:
    stream = Decompressed(io.BytesIO(data).read, "the input")
    while stream.read(4096):
        pass


def _elf(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        elf.read(file.name)


def _template(text: str) -> None:
    Template(text).render({"Id": "abc", "Names": ["a", "b"], "Size": 3})


def _tar_seed(format: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("d/f", tarfile.REGTYPE),
            ("l", tarfile.SYMTYPE),
            ("n" * 60 + "/" + "n" * 90, b"0"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, 5 if kind == b"0" else 0, "d/f" if kind == b"2" else ""
            member.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"} if format == tarfile.PAX_FORMAT else {}
            archive.addfile(member, io.BytesIO(b"bytes"))
    return out.getvalue()


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


REQUEST = {"image": "host", "args": ["sh"], "env": ["A=b"], "binds": [{"source": "/a", "target": "/b"}], "pidsMax": 3}
SPEC = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sh"], "cwd": "/", "capabilities": {"bounding": ["CAP_KILL"]}, "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "options": ["ro"]}],
    "linux": {"namespaces": [{"type": "pid"}], "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}, "resources": {}},
}
START = {"id": HEX, "directory": "/d", "runtimeDirectory": "/r", "rootfs": [{"destination": "", "type": "overlay"}]}
STATUS = {"pid": 1, "pidStartTime": 2, "monitorPid": 3, "monitorStartTime": 4, "bootId": "b", "startedAt": "t"}
EXIT = {"exitCode": 0, "startedAt": "t", "finishedAt": "t"}
CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{HEX}"]}}
CHANGES = b'ENV A=b "c d"=e\nCMD ["a", "b"]\nENTRYPOINT a b\nLABEL x=y\nEXPOSE 80\nHEALTHCHECK --interval=5s CMD true'
FRAMES = attach.frame(attach.STDOUT, b"out") + attach.frame(attach.RESIZE, b"\0\1\0\2") + attach.frame(attach.EXIT)
TARS = [_tar_seed(format) for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
ELF = Path("/bin/true").read_bytes()[: 16 * 1024]

TARGETS = [
    Target("json", _json, [_dump(SPEC), b'[1.5, -2, "\\u00e9", null, {"a": [true]}]'], (OrlopError,)),
    Target("container-request", _record(ContainerRequest), [_dump(REQUEST)], (OrlopError,)),
    Target("exec-request", _record(ExecRequest), [_dump({"args": ["sh"], "user": "0"})], (OrlopError,)),
    Target("runtime-spec", _record(Spec), [_dump(SPEC)], (OrlopError,)),
    Target("start-task", _record(StartTask), [_dump(START)], (OrlopError,)),
    Target("task-status", _record(TaskStatus), [_dump(STATUS)], (OrlopError,)),
    Target("exit-record", _record(ExitRecord), [_dump(EXIT)], (OrlopError,)),
    Target("image-config", _record(image.ImageConfig), [_dump(CONFIG)], (OrlopError,)),
    Target(
        "image-manifest",
        lambda data: image.parse_manifest(data, image.OCI_MANIFEST, "the input"),
        [_dump(MANIFEST)],
        (OrlopError,),
    ),
    Target("digest", _text(Digest.parse), [f"sha256:{HEX}".encode(), b"sha512:" + b"0" * 128], (OrlopError,)),
    Target(
        "reference",
        _text(_reference),
        [b"busybox", b"host:5000/a/b__c:tag", f"a.b/c@sha256:{HEX}".encode(), b"[::1]:5000/a:1"],
        (OrlopError,),
    ),
    Target("platform", _text(Platform.parse), [b"linux/arm64/v8", b"linux/amd64"], (OrlopError,)),
    Target("attach-frames", _attach, [FRAMES, FRAMES * 20], (ValueError,)),
    Target("tar", _tar, TARS, (OrlopError,)),
    Target("compressed", _compressed, [gzip.compress(TARS[0]), zlib.compress(b"a"), TARS[0]], (OrlopError,)),
    Target("elf", _elf, [ELF], (elf.BrokenElf,)),
    Target("changes", _text(lambda text: changes.apply_changes(text.split("\n"))), [CHANGES], (OrlopError,)),
    Target("template", _text(_template), [TEMPLATE, b'{{json .}} {{len .Names}} {{"a\\n"}}'], (OrlopError,)),
]


@each(TARGETS)
def test_a_parser_takes_or_refuses(target: Target) -> None:
    target.try_all()


def test_what_breaks_a_parser_is_kept() -> None:
    broken = Target("broken", lambda data: data[10_000], [b"seed"], (OrlopError,))
    with pytest.raises(IndexError) as finding:
        broken.attack(0, 0)
    kept = Path(finding.value.__notes__[0].split(";")[0].removeprefix("the input lies in "))
    assert kept.read_bytes() == b"seed"
    kept.unlink()
