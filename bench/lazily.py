"""Lazy pulls: an eStargz image from a registry with little bandwidth, until a container has read one of its files."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack

from devtools import peers
from devtools.failure import Failure
from support.archives import Archive
from support.estargz import Narrow, add_image
from support.registries import Content, Registry

from .images import remover, words_before
from .measure import Subject
from .platforms import Platform
from .workspace import Workspace

FILES, FILE_BYTES = 128, 1024 * 1024
BYTES_PER_S = 20_000_000
ROUNDS_MAX = 3
_RUN = {
    "orlop": ["run", "--rm", "--network", "none"],
    "docker": ["run", "--rm", "--network", "none"],
    "podman": ["run", "--rm", "--network", "none", "--tls-verify=false"],
}


class Lazily:
    """The image at its registry. subjects: ours, lazily and not, and the peers'."""

    def __init__(self, work: Workspace, platforms: Sequence[Platform], stack: ExitStack) -> None:
        content, self.narrow = Content(), Narrow(BYTES_PER_S)
        self.bytes = sum(map(len, add_image(content, [_layer()], "1")))
        self._name = f"{stack.enter_context(Registry(content, self.narrow)).name}/lib/x:1"
        self.subjects: list[Subject] = []
        for one in platforms:
            if one.name == "orlop":
                self.subjects.append(self._subject(one, "orlop run --pull lazy", "--pull", "lazy"))
            if one.name in _RUN:
                self.subjects.append(self._subject(one, f"{one.name} run"))

    def fetched(self) -> float:
        """Return which part of the image had come when a container that was started lazily had ended."""
        lazily = self.subjects[0]
        lazily.before()
        before = self.narrow.sent
        subprocess.run(lazily.argv, env=lazily.env, stdout=subprocess.DEVNULL, check=True)
        part = (self.narrow.sent - before) / self.bytes
        lazily.before()
        return part

    def _subject(self, platform: Platform, name: str, *flags: str) -> Subject:
        command, env = words_before(platform), platform.run.env
        argv = [*command, *_RUN[platform.name], *flags, self._name, "/bin/busybox", "cat", "/data/64"]
        return Subject(name, argv, env, before=remover(command, platform, self._name))


def _layer() -> bytes:
    busybox = peers.find("busybox")
    if busybox is None:
        raise Failure("busybox is missing")
    layer = Archive().directory(b"bin", mode=0o755).file(b"bin/busybox", busybox.read_bytes(), mode=0o755)
    layer.directory(b"data", mode=0o755)
    numbers = random.Random(7)
    for number in range(FILES):
        layer.file(b"data/%d" % number, numbers.randbytes(FILE_BYTES))
    return bytes(layer)
