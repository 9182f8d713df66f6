"""Attestations in each form that docker documents: SLSA's two versions, artifacts of the OCI, SBOMs by a scanner's image."""

# ruff: noqa: E501  scripts of scanners

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.engine import Environment

Peer = Callable[[str], Path]
STATEMENT = '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":{"spdxVersion":"SPDX-2.3","files":%s}}'
SCANNER = f"""FROM host
COPY --chmod=755 <<"EOF" /scan
#!/bin/sh
set -e
n=$(ls "$BUILDKIT_SCAN_SOURCE" | tr '\\n' ' ')
! touch "$BUILDKIT_SCAN_SOURCE/x" 2>/dev/null
printf '{STATEMENT.replace("%s", '"%s"')}' "$n" >"$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"
EOF
ENTRYPOINT ["/scan"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    (place / "one").write_text("1")
    (place / "two").write_text("2")
    (place / "Dockerfile").write_text("FROM scratch\nCOPY one two /\n")
    return place


def scanner(orlop: Environment, tmp_path: Path, dockerfile: str) -> str:
    place = tmp_path / "scanner"
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text(dockerfile)
    orlop("build", "-q", "--network=none", "-t", "scanner:1", place)
    return "generator=scanner:1"


def statements(files: Path) -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in files.glob("*.json")}


def test_both_versions_of_provenance(orlop: Environment, context: Path, tmp_path: Path) -> None:
    for version, kind in (("v1", "https://slsa.dev/provenance/v1"), ("v0.2", "https://slsa.dev/provenance/v0.2")):
        words = f"mode=max,version={version},builder-id=https://example.org/b"
        orlop("build", "--provenance", words, "-o", f"type=local,dest={tmp_path / version}", context)
        said = statements(tmp_path / version)["provenance.json"]
        assert said["predicateType"] == kind
        assert {one["name"].lstrip("/") for one in said["subject"]} == {"one", "two"}
        shown = json.dumps(said["predicate"])
        assert '"id":"https://example.org/b"' in shown.replace(" ", "") and "COPY one two /" in shown
    assert set(said["predicate"]) == {"builder", "buildType", "materials", "invocation", "buildConfig", "metadata"}
    refused = orlop("build", "--provenance", "version=v9", context, check=False)
    assert refused.code and "there is no such version" in refused.stderr


def test_an_artifact_names_its_image(orlop: Environment, context: Path, tmp_path: Path, peer: Peer) -> None:
    peer("skopeo")
    archive = tmp_path / "o.tar"
    orlop("build", "--sbom=true", "-o", f"type=oci,dest={archive},oci-artifact=true", "--provenance=true", context)

    def raw(where: str) -> Any:
        return json.loads(subprocess.run(["skopeo", "inspect", "--raw", where], capture_output=True, check=True).stdout)

    image, attestation = raw(f"oci-archive:{archive}")["manifests"]
    assert attestation["annotations"]["vnd.docker.reference.digest"] == image["digest"]
    place = tmp_path / "layout"
    place.mkdir()
    subprocess.run(["tar", "-C", place, "-xf", archive], check=True)
    manifest = json.loads((place / "blobs" / attestation["digest"].replace(":", "/")).read_text())
    assert manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    assert manifest["subject"] == {name: image[name] for name in ("mediaType", "digest", "size")}
    assert (place / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_bytes() == b"{}"
    kinds = [one["annotations"]["in-toto.io/predicate-type"] for one in manifest["layers"]]
    assert kinds == ["https://spdx.dev/Document", "https://slsa.dev/provenance/v1"]


def test_a_scanner_sees_the_tree_and_is_quoted(orlop: Environment, context: Path, tmp_path: Path) -> None:
    words = scanner(orlop, tmp_path, SCANNER)
    orlop("build", "--network=none", "--sbom", words, "-o", f"type=local,dest={tmp_path / 'out'}", context)
    said = statements(tmp_path / "out")["sbom.spdx.json"]
    assert said["predicate"] == {"spdxVersion": "SPDX-2.3", "files": "one two "}
    assert {one["name"].lstrip("/") for one in said["subject"]} == {"one", "two"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "sbom.spdx.json", "two"]


HOSTILE = {
    "echo of the scanner >&2; exit 3": "the scanner ended with 3: of the scanner",
    "true": "the scanner left no file *.spdx.json",
    "echo nothing >$D/a.spdx.json": "a.spdx.json of scanner:1",
    "ln -s /etc/passwd $D/a.spdx.json": "a.spdx.json",
    "ln -s ../../../../../../etc/passwd $D/a.spdx.json": "a.spdx.json",
    "mkfifo $D/a.spdx.json": "a.spdx.json",
    "mkdir $D/a.spdx.json": "a.spdx.json",
    "echo '[]' >$D/a.spdx.json": "it is not a JSON object",
    'echo \'{"predicateType":1,"predicate":{}}\' >$D/a.spdx.json': "it is no in-toto statement",
    "truncate -s 100G $D/a.spdx.json": "a.spdx.json",
}


def test_scanners_that_are_broken_or_hostile(orlop: Environment, context: Path, tmp_path: Path) -> None:
    for script, told in HOSTILE.items():
        line = json.dumps(["sh", "-c", f"D=$BUILDKIT_SCAN_DESTINATION; {script}"])
        words = scanner(orlop, tmp_path, f"FROM host\nENTRYPOINT {line}\n")
        out = ("-o", f"type=local,dest={tmp_path / 'o'}")
        done = orlop("build", "--network=none", "--sbom", words, *out, context, check=False)
        assert done.code and told in done.stderr and "a defect" not in done.stderr, (script, done)
        assert "root:" not in done.stderr


def test_a_scanner_that_is_not_there_or_says_no_command(orlop: Environment, context: Path, tmp_path: Path) -> None:
    words = scanner(orlop, tmp_path, "FROM scratch\nCOPY Dockerfile /\n")
    assert "the image says no command" in orlop("build", "--sbom", words, context, check=False).stderr
    done = orlop("build", "--sbom", "generator=127.0.0.1:1/none", context, check=False)
    assert done.code and "127.0.0.1:1" in done.stderr
