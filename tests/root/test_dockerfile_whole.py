"""One Dockerfile with nearly everything that the language has, built and run by the real command."""

from __future__ import annotations

import json
from pathlib import Path

from support.engine import Environment

DOCKERFILE = r"""
# syntax=docker/dockerfile:1
# escape=\
# check=skip=JSONArgsRecommended
ARG VERSION=host SUFFIX
ARG IMAGE=${VERSION}${SUFFIX:+-}$SUFFIX
# base is the base
FROM --platform=$BUILDPLATFORM ${IMAGE} AS base
ARG A="b c" TARGETARCH
ENV X="$A" Y=${X:-z} Z='$X' W=\$X V=${U:-u} P="${A% *}"
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN --mount=type=cache,target=/c,id=x,sharing=locked --mount=type=secret,id=s,env=S,required \
    --mount=type=bind,source=a,target=/bnd --mount=type=tmpfs,target=/t,size=1m \
    --network=none --security=sandbox \
  # a comment
    echo "$X $TARGETARCH $S" | wc -c > /out && ls /bnd/b >> /out && touch /c/was && ls /c >> /out
RUN <<EOF cat > /x1 && cat <<-'B' > /x2
echo $X
EOF
	tabs $X
	B
RUN <<E
#!/bin/bash
echo "script é $0" > /x3
E
COPY --chown=1:2 --chmod=u=rwX,go=rX --link --parents --exclude=**/*.md a/./b c* /to/
COPY <<f1 <<"f2" /there/
one $X
f1
two $X
f2
FROM base AS Final
LABEL a=b "c d"='e f' \
  g=h
EXPOSE 80 81/udp 90-92/tcp
VOLUME ["/a", "/b c"]
WORKDIR sub/../dir
STOPSIGNAL SIGRTMIN+3
HEALTHCHECK --interval=1m30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 CMD ["curl", "-f"]
ONBUILD COPY . /app
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "cat /out /x1 /x2 /x3 /there/f1 /there/f2; ls -lnR /to; env | sort"]
"""


def test_one_dockerfile_with_everything(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name, content in {"a/b/f.c": "f", "a/b/r.md": "md", "c1": "c1", "x.log": "l", "s.txt": "sec"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / ".dockerignore").write_text("*.log\ns.txt\n")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.lstrip())
    orlop("build", "-q", "--secret", f"id=s,src={tmp_path / 's.txt'}", "-t", "whole:1", tmp_path)
    written = orlop("run", "--rm", "--network=none", "whole:1").stdout.splitlines()
    assert written[:9] == [
        "14",  # "b c", an architecture's five letters, "sec", two spaces and a line's end
        "f.c",
        "r.md",
        "was",
        "echo b c",
        "tabs $X",
        "script \u00e9 /dev/pipes/E",
        "one b c",
        "two $X",
    ]
    assert not any(line.endswith("r.md") for line in written[9:])
    assert {"P=b", "V=u", "W=$X", "X=b c", "Y=z", "Z=$X", "PWD=/dir"} <= set(written)
    config = json.loads(orlop("image", "inspect", "whole:1").stdout)[0]["Config"]
    assert config["Labels"] == {"a": "b", "c d": "e f", "g": "h"}
    assert sorted(config["ExposedPorts"]) == ["80/tcp", "81/udp", "90/tcp", "91/tcp", "92/tcp"]
    assert (sorted(config["Volumes"]), config["StopSignal"]) == (["/a", "/b c"], "SIGRTMIN+3")
    assert config["OnBuild"] == ["COPY . /app"]
    assert config["Healthcheck"]["Test"] == ["CMD", "curl", "-f"]


TEMPLATE = """# syntax=orlop/dockerfile:1
ARG WHO=world
FROM host
INCLUDE parts/hello
FOR n IN 1 2
RUN echo $n >>/out
END
IF $WHO == everybody
LABEL for=everybody
ELSE
INCLUDE parts/one
END
"""


def test_a_dockerfile_is_put_together_from_parts(orlop: Environment, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/hello").write_text("ARG WHO\nRUN echo hello $WHO >/out\n")
    (tmp_path / "parts/one").write_text("LABEL for=one\n")
    (tmp_path / "Dockerfile").write_text(TEMPLATE)
    for words, said, label in (((), "world", "one"), (("--build-arg", "WHO=everybody"), "everybody", "everybody")):
        image = orlop("build", "-q", "--network=none", *words, tmp_path).stdout.strip()
        assert orlop("run", "--rm", "--network=none", image, "cat", "/out").stdout == f"hello {said}\n1\n2\n"
        assert json.loads(orlop("image", "inspect", image).stdout)[0]["Config"]["Labels"] == {"for": label}
    (tmp_path / "parts/one").unlink()
    (tmp_path / "parts/one").symlink_to("../../../../../../../../etc/passwd")
    refused = orlop("build", "-q", tmp_path, check=False)
    assert refused.code and "there is no file parts/one" in refused.stderr and "root:" not in refused.stderr
    (tmp_path / "parts/one").unlink()
    (tmp_path / "parts/one").write_text("INCLUDE hello\nINCLUDE one\n")
    refused = orlop("build", "-q", tmp_path, check=False)
    assert "files include each other: Dockerfile -> parts/one -> parts/one" in refused.stderr
    assert "parts/one:2" in refused.stderr
