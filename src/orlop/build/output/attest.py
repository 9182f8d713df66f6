"""Attestations: what an image was made from (SLSA provenance), and what is in it (SPDX), beside it in an index.

They say nothing of when or where: the same build attests the same. Values of build arguments are not in them (they are
where passwords are passed); their names are, with mode=max.
Source: BuildKit, docs/attestations; in-toto Statement v0.1; slsa.dev/provenance/v1; SPDX 2.3.
"""

from __future__ import annotations

import stat

from orlop.linux.path import read_in_root
from orlop.spec import jsonio
from orlop.spec.digest import Digest
from orlop.spec.errors import Invalid
from orlop.spec.image import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
    RootFs,
)
from orlop.spec.platform import Platform

from .. import graph
from ..solver.tree import listing
from . import wanted as wished
from .packages import installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..solver.solve import Solver
    from .wanted import Attestation

IN_TOTO = "application/vnd.in-toto+json"
ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
OCI_EMPTY, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
PROVENANCE, PROVENANCE_V02 = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"
SPDX = "https://spdx.dev/Document"
BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"
BUILD_TYPE = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
BUILDER = "orlop"
UNKNOWN = Platform(os="unknown", architecture="unknown")
SHA256_BYTES = 32
FILE_BYTES_MAX = 64 * 1024 * 1024


def write(
    solver: Solver, images: Sequence[tuple[graph.Target, Descriptor]], *, artifacts: bool = False
) -> list[Descriptor]:
    """Store the attestations of images; return what an index says of them, behind the images.

    artifacts: with the image as their subject, and without a configuration.
    """
    return [_attestations(solver, target, descriptor, artifacts) for target, descriptor in images]


def files(solver: Solver, target: graph.Target, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield the attestations of a tree as files beside its own: their names and what they hold.

    Raises Invalid for a name that the tree has itself.
    """
    if not solver.settings.request.attestations:
        return
    tree = solver.solved[target.vertex].tree
    with solver.opened(tree) as root:
        nodes = listing(root, "/", tree).nodes
    taken = {node.path for node in nodes}
    subjects = [
        {"name": node.path, "digest": {"sha256": node.content[:SHA256_BYTES].hex()}}
        for node in nodes
        if stat.S_ISREG(node.info.st_mode)
    ]
    for kind, name, predicate in _predicates(solver, target):
        if prefix + name in taken:
            hint = "give the output attestation-prefix="
            raise Invalid("export", f"attestation {prefix}{name}", "the tree has a file of that name", hint=hint)
        taken.add(prefix + name)
        yield prefix + name, jsonio.dump(_statement(kind, subjects, predicate))


def _predicates(solver: Solver, target: graph.Target) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield what is attested: its type, the name of a file of it, and itself."""
    wanted = solver.settings.request.attestations
    for one in wanted:
        if one.kind == wished.SBOM and one.generator:
            from .generator import scanned

            yield from scanned(solver, target, one.generator)
        elif one.kind == wished.SBOM:
            yield SPDX, "sbom.spdx.json", _document(solver, target)
    for one in wanted:
        name = one.filename or "provenance.json"
        if one.kind == wished.PROVENANCE and one.version == wished.V02:
            yield PROVENANCE_V02, name, _provenance_v02(solver, target, one)
        elif one.kind == wished.PROVENANCE:
            yield PROVENANCE, name, _provenance(solver, target, one)


def _statement(kind: str, subjects: Sequence[object], predicate: object) -> dict[str, object]:
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": kind,
        "subject": list(subjects),
        "predicate": predicate,
    }


def _attestations(solver: Solver, target: graph.Target, image: Descriptor, artifacts: bool) -> Descriptor:
    store = solver.engine.store
    subjects = [{"name": name, "digest": {image.digest.algorithm: image.digest.hex}} for name in _names(solver)]
    layers = []
    for kind, _, predicate in _predicates(solver, target):
        layer = store.ingest(jsonio.dump(_statement(kind, subjects, predicate)), media_type=IN_TOTO)
        layers.append(layer.replace(annotations={"in-toto.io/predicate-type": kind}))
    if artifacts:
        described = store.ingest(EMPTY, media_type=OCI_EMPTY)
    else:
        rootfs = RootFs(type="layers", diff_ids=tuple(layer.digest for layer in layers))
        config = ImageConfig(architecture="unknown", os="unknown", rootfs=rootfs)
        described = store.ingest(jsonio.dump(config.to_json()), media_type=OCI_CONFIG)
    manifest = Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        artifact_type=ARTIFACT if artifacts else "",
        config=described,
        layers=tuple(layers),
        subject=Descriptor(media_type=image.media_type, digest=image.digest, size=image.size) if artifacts else None,
    )
    stored = store.ingest(jsonio.dump(manifest.to_json()), media_type=OCI_MANIFEST)
    annotations = {
        "vnd.docker.reference.digest": str(image.digest),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return stored.replace(platform=UNKNOWN, annotations=annotations)


def _names(solver: Solver) -> list[str]:
    return [f"pkg:docker/{tag}" for tag in solver.settings.request.tags] or ["_"]


def _materials(solver: Solver) -> list[dict[str, object]]:
    """Return what was taken from elsewhere: images, repositories, files, with their digests."""
    materials: list[dict[str, object]] = []
    for vertex, solved in solver.solved.items():
        if isinstance(vertex, graph.ImageSource) and solved.image is not None:
            digest = solved.image.target.digest
            name = vertex.reference.partition("@")[0]
            materials.append({"uri": f"pkg:docker/{name}", "digest": {digest.algorithm: digest.hex}})
        elif isinstance(vertex, graph.GitSource | graph.HttpSource):
            kind, _, value = solved.tree.key.partition(" ")
            word = "sha1" if kind == "git" else "sha256"
            materials.append({"uri": vertex.url, "digest": {word: value.partition(" ")[0]}})
    return sorted(materials, key=lambda one: str(one["uri"]))


def _parameters(solver: Solver, target: graph.Target, asked: Attestation) -> dict[str, object]:
    request = solver.settings.request
    parameters: dict[str, object] = {"frontend": "dockerfile.v0"}
    if request.target:
        parameters["target"] = request.target
    if asked.everything:
        parameters["buildArguments"] = sorted(request.build_args)
        parameters["secrets"] = sorted(solver.settings.secrets)
        parameters["steps"] = [step.origin.text for step in target.steps if step.vertex is not None]
    return parameters


def _provenance_v02(solver: Solver, target: graph.Target, asked: Attestation) -> dict[str, object]:
    parameters = _parameters(solver, target, asked)
    steps = parameters.pop("steps", None)
    return {
        "builder": {"id": asked.builder},
        "buildType": BUILD_TYPE_V02,
        "materials": _materials(solver),
        "invocation": {
            "configSource": {"entryPoint": solver.settings.request.dockerfile or "Dockerfile"},
            "parameters": parameters,
            "environment": {"platform": str(solver.engine.images.platform)},
        },
        **({"buildConfig": {"steps": steps}} if steps is not None else {}),
        "metadata": {
            "completeness": {"parameters": asked.everything, "environment": True, "materials": False},
            "reproducible": True,
        },
    }


def _provenance(solver: Solver, target: graph.Target, asked: Attestation) -> dict[str, object]:
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "configSource": {"path": solver.settings.request.dockerfile or "Dockerfile"},
                "request": _parameters(solver, target, asked),
            },
            "internalParameters": {"builderPlatform": str(solver.engine.images.platform)},
            "resolvedDependencies": _materials(solver),
        },
        "runDetails": {"builder": {"id": asked.builder or BUILDER}, "metadata": {"buildkit_reproducible": True}},
    }


def _document(solver: Solver, target: graph.Target) -> dict[str, object]:
    """Return an SPDX document of the packages that package managers have installed in a tree."""
    with solver.opened(solver.solved[target.vertex].tree) as root:
        packages = installed(lambda path: read_in_root(root, path, FILE_BYTES_MAX), root)
    name = (solver.settings.request.tags or ("image",))[0]
    content = "\n".join(f"{one.kind} {one.name} {one.version}" for one in packages)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{Digest.of(content.encode()).hex}",
        "creationInfo": {"created": solver.settings.created, "creators": ["Tool: orlop"]},
        "packages": [
            {
                "SPDXID": f"SPDXRef-Package-{number}",
                "name": one.name,
                "versionInfo": one.version,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": False,
                "externalRefs": [
                    {
                        "referenceCategory": "PACKAGE-MANAGER",
                        "referenceType": "purl",
                        "referenceLocator": f"pkg:{one.kind}/{one.name}@{one.version}",
                    }
                ],
            }
            for number, one in enumerate(packages)
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": f"SPDXRef-Package-{number}",
            }
            for number, _ in enumerate(packages)
        ],
    }
