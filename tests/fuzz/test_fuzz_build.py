"""What builds read, against inputs that nobody would write: Dockerfiles, .dockerignore, bake files, URLs, mounts."""

from __future__ import annotations

from orlop.build.bake.document import Document
from orlop.build.bake.targets import listed, plan
from orlop.build.dockerfile.compile import compile
from orlop.build.dockerfile.mounts import parse_mount
from orlop.build.dockerfile.options import Options
from orlop.build.dockerfile.outline import check, outline, targets
from orlop.build.dockerfile.parse import parse
from orlop.build.dockerfile.remote import parse_git_url
from orlop.build.ignore import Matcher, parse_lines
from orlop.spec import jsonio
from orlop.spec.errors import OrlopError
from orlop.spec.image import ContainerConfig
from orlop.spec.platform import Platform
from support.fuzzing import Target, each

AMD64 = Platform(os="linux", architecture="amd64")
ON_BUILD = ContainerConfig(env=("A=b",), on_build=("COPY --from=base / /", "RUN x"), working_dir="/w")
PATHS = ("a", "a/b", "a/b/c.md", "x y", "é/ü", "." * 300, "a/" * 100 + "b", "*", "\\", "[a]")


def _resolve(reference: str, platform: Platform) -> ContainerConfig:
    return ON_BUILD if "onbuild" in reference else ContainerConfig(env=("A=b",))


def _dockerfile(data: bytes) -> None:
    dockerfile = parse(data)
    targets(dockerfile)
    options = Options(build_platform=AMD64, build_args={"A": "1", "VERSION": "2"}, all_stages=True)
    check(dockerfile, options, _resolve)
    outline(dockerfile, options, _resolve)
    for target in compile(dockerfile, options, _resolve).targets:
        written = jsonio.dump(target.config.to_json())
        assert ContainerConfig.from_json(jsonio.parse(written, "what was written"), "") == target.config
        assert len(target.steps) <= 20_000


def _ignore(data: bytes) -> None:
    matcher = Matcher(parse_lines(data.decode(errors="surrogateescape")))
    for path in PATHS:
        assert matcher.excludes(path) or not matcher.prunes(path)


def _bake(name: str) -> object:
    def read(data: bytes) -> None:
        document = Document([(name, data.decode(errors="replace"))], {"TAG": "1"}, {})
        listed(document)
        jsonio.dump(plan(document, sorted({*document.targets, *document.groups})).to_json())

    return read


def _git(data: bytes) -> None:
    url = parse_git_url(data.decode(errors="replace"))
    if url is not None:
        assert not url.reference.startswith("-")
        assert ".." not in url.subdirectory.split("/")
        assert not url.remote.startswith("-")


def _mount(data: bytes) -> None:
    parse_mount(data.decode(errors="replace"), lambda text: text)


WHOLE = r"""# syntax=docker/dockerfile:1
# escape=\
# check=skip=JSONArgsRecommended;error=false
ARG VERSION=12 SUFFIX
ARG IMAGE=debian:${VERSION}${SUFFIX:+-}$SUFFIX
# base is the base
FROM --platform=$BUILDPLATFORM ${IMAGE} AS base
ARG A="b c" D=${A#b}${A%%c}${A/b/x}${A//[b]/y}
ENV X="$A" Y=${X:-z} Z='$X' W=\$X V=${U:-u}
ENV old form of it
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN --mount=type=cache,target=/c,id=x,sharing=locked --mount=type=secret,id=s,env=S,required \
    --mount=type=bind,from=debian,source=/a,target=b,rw --mount=type=tmpfs,target=/t,size=1m --mount=type=ssh \
    --network=none --security=sandbox --device=a.b/c=d \
  # a comment

    echo "$X" && \
    echo done
RUN <<EOF cat <<-'B' > /x
echo $A
EOF
	tabs
	B
RUN <<E
#!/usr/bin/env python3
print("é")
E
COPY --from=debian:12 --chown=a:b --chmod=u=rwX,go=rX --link --parents --exclude=**/*.md a/./b c* /to/
COPY <<f1 <<"f2" /there/
one $X
f1
two $X
f2
ADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 https://h/p.tgz?q=1 .
ADD --keep-git-dir=true --unpack=false https://h/r.git#main:sub git@h:r.git?ref=a&subdir=b ./x
FROM base AS Final
LABEL a=b "c d"='e f' \
  g=h
EXPOSE 80 81/udp 90-92/tcp ${A:+82}
VOLUME ["/a", "/b c"]
USER u:g
WORKDIR sub/../dir
STOPSIGNAL SIGRTMIN+3
HEALTHCHECK --interval=1m30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 CMD ["curl", "-f"]
ONBUILD COPY . /app
MAINTAINER somebody <a@b>
ENTRYPOINT ["/init"]
CMD exec form \
""".encode()
IGNORE = b"# c\n*.md\n!README.md\n**/node_modules\n/a/../b/\n[a-c]?\\*\na**b/**\n!keep/**/x\n"
HCL = b"""variable "TAG" {
  type = string
  default = "latest"
  validation {
    condition = TAG != ""
    error_message = "no"
  }
}
function "tag" {
  params = [name]
  variadic_params = more
  result = [for t in concat([TAG], more) : "x/${name}:${t}"]
}
group "default" { targets = ["app"] }
target "common" { args = { A = 1 + 2 * 3, B = TAG == "x" ? null : "y", C = max([1, 2]...) } }
target "app" {
  inherits = ["common"] # comment
  name = "app-${sanitize(v)}-${i.n}"
  matrix = { v = ["1.0", "2"], i = [{ n = "a" }, { n = "b" }] }
  tags = tag("app", "b", upper(substr("abc", 0, 2)))
  contexts = { c = "target:common" }
  output = [{ type = "local", dest = "out" }, "type=tar,dest=x"]
  dockerfile-inline = <<-EOT
    FROM scratch
    %{ if true }LABEL a=b%{ else }x%{ endif ~}
    %{ for k, v in { a = 1 } }LABEL ${k}=${v}
    %{ endfor }
  EOT
  labels = { for k, v in { a = "b" } : "x.${k}" => jsonencode([v, { (k) = [1, null] }]) if v != "c" }
}
"""
JSON = b"""{"variable": {"TAG": {"default": "a"}}, "group": {"default": {"targets": ["a", "b"]}},
"target": {"a": {"tags": ["x:${TAG}"], "args": {"A": "${upper(TAG)}", "B": null}, "pull": true},
"b": {"inherits": ["a"], "platforms": ["linux/amd64"], "output": [{"type": "tar", "dest": "x"}]}}}"""

TARGETS = [
    Target(
        "dockerfile",
        _dockerfile,
        [WHOLE, b"FROM scratch AS base\nFROM onbuild\nRUN b", b"FROM scratch AS x\nFROM x\nCOPY --from=0 a b"],
        (),
    ),
    Target("dockerignore", _ignore, [IGNORE], ()),
    Target("bake-hcl", _bake("docker-bake.hcl"), [HCL], ()),
    Target("bake-json", _bake("docker-bake.json"), [JSON], ()),
    Target("git-url", _git, [b"https://h/r.git#main:sub/dir", b"git@h:p?tag=v1&subdir=x&submodules=0"], ()),
    Target("mount-flag", _mount, [b'type=cache,target=/c,"id=a,b",mode=0755,uid=1,sharing=locked', b"from=a,ro"], ()),
]
for _target in TARGETS:
    _target.refusals = (ValueError,) if _target.name in ("git-url", "mount-flag") else (OrlopError,)


@each(TARGETS)
def test_a_parser_takes_or_refuses(target: Target) -> None:
    target.try_all()
