"""The OCI image documents: read, written, and refused where two readers would see two things (SEC-45)."""

from __future__ import annotations

import json

import pytest

from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ImageConfig,
    Index,
    Manifest,
    chain_ids,
    parse_manifest,
)

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))
CONFIG = {"mediaType": OCI_CONFIG, "digest": A, "size": 1}
LAYER = {"mediaType": OCI_LAYER, "digest": B, "size": 2}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": C, "size": 3, "platform": {"os": "linux", "architecture": "arm64"}}
    ],
}
DOCKER_CONFIG_DOCUMENT = {
    "architecture": "amd64",
    "config": {
        "Hostname": "",
        "Env": ["PATH=/bin", "A=1"],
        "Cmd": ["sh"],
        "Entrypoint": None,
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/w",
        "Labels": {"a": "b"},
        "StopSignal": "SIGQUIT",
        "OnBuild": None,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5000000000},
        "Shell": ["/bin/bash", "-c"],
        "AttachStdin": False,
    },
    "container": "0" * 64,
    "created": "2024-01-01T00:00:00Z",
    "docker_version": "24.0",
    "history": [{"created_by": "CMD", "empty_layer": True}, {"created": "2024-01-01T00:00:00Z"}],
    "os": "linux",
    "os.version": "1",
    "rootfs": {"type": "layers", "diff_ids": [A]},
    "variant": "v2",
}


def document(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest(media_type: str) -> None:
    parsed = parse_manifest(document({**MANIFEST, "mediaType": media_type}), media_type, "m")
    assert isinstance(parsed, Manifest)
    assert parsed.layers[0].digest == B
    assert parsed.to_json() == {**MANIFEST, "mediaType": media_type}


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_an_index(media_type: str) -> None:
    parsed = parse_manifest(document({**INDEX, "mediaType": media_type}), media_type, "i")
    assert isinstance(parsed, Index)
    assert str(parsed.manifests[0].platform) == "linux/arm64"


def test_the_media_type_inside_may_be_missing() -> None:
    inside = {key: value for key, value in MANIFEST.items() if key != "mediaType"}
    assert isinstance(parse_manifest(document(inside), OCI_MANIFEST, "m"), Manifest)


@pytest.mark.parametrize(
    ("value", "media_type", "cause"),
    [
        ({**MANIFEST, "manifests": []}, OCI_MANIFEST, "'manifests' has no place"),
        ({**INDEX, "layers": []}, OCI_INDEX, "'layers' has no place"),
        ({**INDEX, "config": CONFIG}, OCI_INDEX, "'config' has no place"),
        ({**MANIFEST, "fsLayers": []}, OCI_MANIFEST, "'fsLayers' has no place"),
        (MANIFEST, OCI_INDEX, "calls itself"),
        (MANIFEST, DOCKER_MANIFEST, "calls itself"),
        (INDEX, OCI_MANIFEST, "calls itself"),
        (MANIFEST, "application/json", "no media type of an image manifest"),
        ({**MANIFEST, "schemaVersion": 1}, OCI_MANIFEST, "schemaVersion is 1"),
        ({**MANIFEST, "schemaVersion": "2"}, OCI_MANIFEST, "expected an integer"),
        ({**MANIFEST, "layers": [{**LAYER, "size": -1}]}, OCI_MANIFEST, "size is negative"),
        ({**MANIFEST, "layers": [{**LAYER, "digest": "sha256:../../x"}]}, OCI_MANIFEST, r"layers\[0\].digest"),
        ({**MANIFEST, "layers": None}, OCI_MANIFEST, "layers: it is required"),
        ({**MANIFEST, "config": None}, OCI_MANIFEST, "config: it is required"),
        ([], OCI_MANIFEST, "not a JSON object"),
    ],
)
def test_documents_that_could_mean_two_things_or_nothing(value: object, media_type: str, cause: str) -> None:
    with pytest.raises(Invalid, match=cause):
        parse_manifest(document(value), media_type, "document")


def test_a_repeated_name_is_refused() -> None:
    twice = document(MANIFEST)[:-1] + b', "layers": []}'
    with pytest.raises(Invalid, match="stands twice"):
        parse_manifest(twice, OCI_MANIFEST, "document")


def test_dockers_configuration_survives() -> None:
    config = ImageConfig.from_json(DOCKER_CONFIG_DOCUMENT)
    assert config.config.healthcheck is not None
    assert config.config.healthcheck.interval == 5 * 10**9
    assert (config.config.cmd, config.config.entrypoint, config.config.shell) == (("sh",), (), ("/bin/bash", "-c"))
    assert str(config.platform) == "linux/amd64/v2"
    written = config.to_json()
    for name in ("architecture", "created", "docker_version", "history", "os", "os.version", "rootfs", "variant"):
        assert written[name] == DOCKER_CONFIG_DOCUMENT[name]
    kept = {name: value for name, value in DOCKER_CONFIG_DOCUMENT["config"].items() if value}  # type: ignore[attr-defined]
    assert written["config"] == kept
    assert ImageConfig.from_json(written) == config


def test_only_layers_make_a_root_file_system() -> None:
    with pytest.raises(Invalid, match="not 'layers'"):
        ImageConfig.from_json({**DOCKER_CONFIG_DOCUMENT, "rootfs": {"type": "zip", "diff_ids": []}})


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second, third = chain_ids((A, B, C))
    assert first == A
    assert second == Digest.of(f"{A} {B}".encode())
    assert third == Digest.of(f"{second} {C}".encode())
    assert chain_ids(()) == ()
