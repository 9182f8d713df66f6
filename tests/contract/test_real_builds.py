"""Builds as people have them: several stages, packages of Debian, a program that is compiled and then run.

The small one is always built, by ours, by buildx with ours and by docker's classic builder. ORLOP_TEST_BUILDS=all
builds those on a whole Debian too, by buildah as well: C, Python, Node and Go.
Steps reach Debian by HTTP_PROXY, an argument that no image keeps: support.mirror.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support import builders, debian
from support.builders import Builder, Peer
from support.builds import base_archive
from support.mirror import proxy
from support.netns import on_the_machine

WHOLE = os.environ.get("ORLOP_TEST_BUILDS") == "all"
INSTALL = "apt-get install -y -q --no-install-recommends"
# What a package's own installation writes with the time or in no order.
UNSTEADY = re.compile(
    r"\.$|var/(log|cache|lib/apt)(/|$)|etc/(machine-id|resolv.conf|hosts|hostname)$|.*__pycache__|var/lib/dpkg/"
)

SMALL = """\
FROM base:1 AS packages
ARG PACKAGES
RUN set -e; mkdir /tree; \\
  for url in $PACKAGES; do busybox wget -q -O /one.deb $url; busybox dpkg-deb -x /one.deb /tree; \\
  done; rm /one.deb; for link in lib lib64; do [ -e /tree/$link ] || ln -s usr/lib /tree/$link; done
FROM packages AS compiled
COPY main.c greeting.h /src/
RUN cp -a /tree/* / && cd /src && tcc -DWORD=small -o /hello main.c && /hello
FROM base:1
COPY --from=packages /tree/lib /lib
COPY --from=packages /tree/lib64 /lib64
COPY --from=compiled /hello /usr/bin/hello
ENTRYPOINT ["/usr/bin/hello"]
"""
C = f"""\
FROM base:1 AS compiled
RUN {INSTALL} gcc libc6-dev make zlib1g-dev
WORKDIR /src
COPY Makefile main.c greeting.h ./
RUN make hello
FROM base:1
RUN {INSTALL} zlib1g && rm -rf /var/lib/apt/lists
COPY --from=compiled /src/hello /usr/local/bin/
USER nobody
ENTRYPOINT ["hello"]
"""
PYTHON = f"""\
FROM base:1 AS python
RUN {INSTALL} python3
FROM python AS packed
COPY app /src/app
RUN find /src/app -exec touch -d @1000000000 {{}} + && python3 -m zipapp /src/app -o /app.pyz -p '/usr/bin/env python3'
FROM python
COPY --from=packed /app.pyz /srv/
WORKDIR /srv
ENV PYTHONDONTWRITEBYTECODE=1
CMD ["python3", "app.pyz"]
"""
NODE = f"""\
FROM base:1 AS node
RUN {INSTALL} nodejs
FROM node AS bundled
COPY *.js /src/
RUN cd /src && node bundle.js lib.js main.js > /bundle.js
FROM node
COPY --from=bundled /bundle.js /srv/bundle.js
CMD ["node", "/srv/bundle.js"]
"""
GO = f"""\
FROM base:1 AS compiled
RUN {INSTALL} golang-go
WORKDIR /src
COPY go.mod main.go ./
ENV CGO_ENABLED=0 GOCACHE=/tmp/cache
RUN go build -trimpath -ldflags=-buildid= -o /hello .
FROM scratch
COPY --from=compiled /hello /hello
ENTRYPOINT ["/hello"]
"""
FILES = {
    "greeting.h": "#define GREETING \"hello from C\"\n",
    "main.c": "#include <stdio.h>\n#include \"greeting.h\"\n#ifdef ZLIB\n#include <zlib.h>\n#endif\n"
    "int main(void) {\n#ifdef ZLIB\n  printf(\"%s, %lu\\n\", GREETING, crc32(0L, (const Bytef *)\"abc\", 3));\n"
    "#else\n  printf(\"%s\\n\", GREETING);\n#endif\n  return 0; }\n",
    "Makefile": "hello: main.c greeting.h\n\tgcc -DZLIB -O2 -o $@ main.c -lz\n",
    "app/__main__.py": "import json, lib, zlib\nprint(json.dumps({'said': lib.WORD, 'crc': zlib.crc32(b'abc')}))\n",
    "app/lib.py": "WORD = 'hello from Python'\n",
    "bundle.js": "for (const f of process.argv.slice(2)) console.log(require('fs').readFileSync(f, 'utf8'));\n",
    "lib.js": "function word() { return 'hello from Node'; }\n",
    "main.js": "console.log(word(), require('crypto').createHash('sha256').update('abc').digest('hex').slice(0, 8));\n",
    "go.mod": "module hello\n\ngo 1.19\n",
    "main.go": "package main\n\nimport (\n\t\"crypto/sha256\"\n\t\"fmt\"\n)\n\n"
    "func main() { fmt.Printf(\"hello from Go %x\\n\", sha256.Sum256([]byte(\"abc\")))}\n",
}  # fmt: skip
SAID = {
    "small": "hello from C\n",
    "c": "hello from C, 891568578\n",
    "python": '{"said": "hello from Python", "crc": 891568578}\n',
    "node": "hello from Node ba7816bf\n",
    "go": "hello from Go ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n",
}
PROJECTS = {"c": C, "python": PYTHON, "node": NODE, "go": GO} if WHOLE else {}
PACKAGES = ("tcc", "libtcc-dev", "libc6", "libc6-dev", "linux-libc-dev", "libcrypt1")


class Site:
    """The builders with one base image, and how a step of each reaches Debian."""

    def __init__(self, judges: list[Builder], ours: tuple[Builder, ...], urls: list[str]) -> None:
        self.judges, self.ours, self.urls = judges, ours, urls

    def options(self, builder: Builder) -> list[str]:
        url = self.urls[0] if builder in self.ours else self.urls[1]
        return ["--network=host", f"--build-arg=HTTP_PROXY={url}", f"--build-arg=http_proxy={url}"]


def site(workspace: Workspace, base: Path, peer: Peer) -> Iterator[Site]:
    context = workspace.path("context/c")
    for name, text in FILES.items():
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text(text)
    judges: list[Builder] = [builders.classic(workspace, context, base, peer)]
    if WHOLE:
        judges.append(builders.buildah(workspace, context, base, peer))
    environment = builders.engine(workspace, base)
    try:
        orlop, _, buildx = builders.doors(workspace, environment, context, peer)
        with proxy(environment.inside, lambda work: work()) as urls:
            yield Site(judges, (orlop, buildx), urls)
    finally:
        left = environment.close()
    assert not left, left


@pytest.fixture(scope="module")
def small(peer: Peer) -> Iterator[Site]:
    with Workspace() as workspace:
        base_archive(workspace.directory / "base.tar", peer("busybox"))
        yield from site(workspace, workspace.directory / "base.tar", peer)


@pytest.fixture(scope="module")
def whole(peer: Peer) -> Iterator[Site]:
    """A Debian with apt and its lists, as mmdebstrap makes it from where this machine gets its packages."""
    with Workspace() as workspace:
        base = workspace.directory / "base.tar"
        debian.archive(peer, base, "apt", ["--skip=cleanup/apt/lists"])
        yield from site(workspace, base, peer)


def judge(site: Site, name: str, text: str, *options: str) -> None:
    """Build by all; what runs says the right thing, and what lies in the images is the same."""
    found = []
    for builder in (*site.ours, *site.judges):  # ours at once: an idle engine leaves while the judges build
        builder.build(text, f"real-{name}:1", *site.options(builder), *options)
        found.append(builder.image(f"real-{name}:1"))
    assert found[1].document == found[0].document, "buildx with ours and our command make two images"
    orlop = site.ours[0]
    ran = orlop(builders.COMMAND, "run", "--rm", "--network=none", f"real-{name}:1").stdout.decode()
    assert ran == SAID[name]
    steady = [{path: what for path, what in one.files.items() if not UNSTEADY.match(path)} for one in found]
    for other in steady[1:]:
        differing = {path for path in other.keys() | steady[0].keys() if other.get(path) != steady[0].get(path)}
        assert not differing, {path: (steady[0].get(path), other.get(path)) for path in sorted(differing)[:10]}
    for one in found:
        assert "127.0.0.1" not in str(one.document), "the way to the packages is in an image"


def test_a_program_of_packages_and_sources(small: Site) -> None:
    # As if none were installed: the machine may have versions that its sources have no longer.
    words = ["apt-get", "-o", "Dir::State::status=/dev/null", "download", "--print-uris", "-q", *PACKAGES]
    told = on_the_machine(lambda: subprocess.run(words, capture_output=True, text=True, check=True)).stdout
    urls = re.findall(r"^'(http://[^']+)'", told, re.MULTILINE)
    assert len(urls) == len(PACKAGES), told
    judge(small, "small", SMALL, f"--build-arg=PACKAGES={' '.join(urls)}")


if WHOLE:

    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("name", PROJECTS)
    def test_a_project_on_debian(name: str, whole: Site) -> None:
        judge(whole, name, PROJECTS[name])
