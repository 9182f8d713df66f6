"""Archives made to fill disk or memory (SEC-42): refused early, in bounded memory, and nothing of them stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY_BYTES_MAX = 256 << 20

pytestmark = pytest.mark.root

# Run in a process of its own, so that its peak is its own. The sources make their bytes while they are read.
SCRIPT = """
import bz2, gzip, io, json, lzma, os, sys, zlib
from orlop.content import compression
from orlop.snapshot import Snapshots
from orlop.spec.digest import Digest
from orlop.spec.errors import OrlopError
from support.archives import Archive, header, long_name, pax, padded

compression.RATIO_FREE_BYTES = 64 << 20   # else each case would write a gibibyte first
ZEROS = bytes(1 << 20)

def packed(compressor, *parts):
    for part in parts:
        for data in (part if not isinstance(part, bytes) else (part,)):
            yield compressor.compress(data)
    yield compressor.flush()

def zeros(mebibytes):
    return (ZEROS for _ in range(mebibytes))

def gzip_compressor():
    return zlib.compressobj(9, zlib.DEFLATED, 31)

def sparse(stored, data=b"", **records):
    named = {b"GNU.sparse." + name.encode(): value for name, value in records.items()}
    return iter([pax(named), header(b"sparse", size=stored), padded(data)])

def zstd(head, mebibytes):
    # A frame with a window of a mebibyte, RFC 8878, 3.1.1: a block as it is, then blocks of one byte said 131072 times.
    yield b"\\x28\\xb5\\x2f\\xfd\\x00\\x50" + (len(head) << 3).to_bytes(3, "little") + head
    for _ in range(mebibytes):
        yield ((131072 << 3 | 1 << 1).to_bytes(3, "little") + b"\\0") * 8

MAP = b"1000000\\n" + b"0\\n" * 2000000
big = header(b"big", size=8 << 30)
CASES = {
    "gzip of 8 GiB of zeros": lambda: packed(gzip_compressor(), big, zeros(8192)),
    "xz of 8 GiB of zeros": lambda: packed(lzma.LZMACompressor(preset=0), big, zeros(8192)),
    "bzip2 of 8 GiB of zeros": lambda: packed(bz2.BZ2Compressor(1), big, zeros(8192)),
    "zstd of 8 GiB of zeros": lambda: zstd(big, 8192),
    "gzip of zero blocks behind the end": lambda: packed(gzip_compressor(), bytes(Archive()), zeros(8192)),
    "gzip of a gzip": lambda: iter([gzip.compress(gzip.compress(ZEROS * 8))]),
    "a pax header of a gibibyte": lambda: (part for part in [header(b"x", b"x", size=1 << 30), *[ZEROS] * 1024]),
    "a gnu name of a gibibyte": lambda: (part for part in [header(b"x", b"L", size=1 << 30), *[ZEROS] * 1024]),
    "a sparse file of 8 exbibytes": lambda: sparse(0, size=b"9223372036854775807", map=b"0,0"),
    "a sparse map of a million pieces": lambda: sparse(4 << 20, MAP, major=b"1", realsize=b"9"),
    "a directory 4096 deep": lambda: iter([bytes(Archive().directory(b"d/" * 4096))]),
    "directories that nobody describes": lambda: (
        long_name(b"%d/" % number + b"1234567/" * 250 + b"f") + header(b"f") for number in range(100)
    ),
    "twenty thousand directories of one name": lambda: (header(b"same", b"5") * 512 for _ in range(40)),
}

class Blob:
    def __init__(self, parts):
        self.parts = parts
    def read(self, count):
        for part in self.parts:
            if part:
                return part
        return b""
    def close(self):
        pass

snapshots = Snapshots(sys.argv[2])
try:
    snapshots.unpack([(Digest.of(b"whatever"), lambda: Blob(CASES[sys.argv[1]]()))])
    said = ""
except OrlopError as error:
    said = str(error)
# not ru_maxrss: it survives execve, and would tell the peak of the test's own process
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([said, int(status["VmHWM"].split()[0]) * 1024]))
"""

EXPECTED = {
    "gzip of 8 GiB of zeros": "it looks made to fill the disk",
    "xz of 8 GiB of zeros": "it looks made to fill the disk",
    "bzip2 of 8 GiB of zeros": "it looks made to fill the disk",
    "zstd of 8 GiB of zeros": "it looks made to fill the disk",
    "gzip of zero blocks behind the end": "it looks made to fill the disk",
    "gzip of a gzip": "it is not a tar archive",
    "a pax header of a gibibyte": "an extended header of 1073741824 bytes",
    "a gnu name of a gibibyte": "an extended header of 1073741824 bytes",
    "a sparse file of 8 exbibytes": "files of more than",
    "a sparse map of a million pieces": "more than 65536 pieces",
    "a directory 4096 deep": "a name of more than 4096 bytes",
    "directories that nobody describes": "more directories without describing them than any image needs",
    "twenty thousand directories of one name": "its content has the diff_id",
}


@pytest.mark.parametrize("case", EXPECTED)
def test_a_bomb_is_refused_in_bounded_memory_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, case, tmp_path / "snapshots"],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    said, peak_bytes = json.loads(done.stdout)
    assert EXPECTED[case] in said
    assert peak_bytes < MEMORY_BYTES_MAX
    for name in ("layers", "unpacking", "trash"):
        assert os.listdir(tmp_path / "snapshots" / name) == []
