"""The verb `pull`: which places are asked, with whose name, and what the client hears meanwhile."""

from __future__ import annotations

from ...image.pull import Pull
from ...image.registry import Patience
from ...spec.errors import Invalid, Unavailable
from ...spec.platform import Platform
from ...spec.reference import Reference
from ...spec.registry import REGISTRY, Location
from .. import events
from . import referrers
from .registries import cancelled_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ...content.leases import Lease
    from ...spec.registry import PullRequest
    from ..engine import Engine

    Message = dict[str, object]


def pull(engine: Engine, request: PullRequest, hangup: int = -1) -> Iterator[Message]:
    """Pull an image, or all tags of a repository; yield docker's messages. Given up when the client hangs up."""
    reference = Reference.parse(request.image)
    if not request.all_tags:
        yield from _pull_one(engine, request, reference.tagged(), hangup)
        return
    if reference.tag or reference.digest:
        raise Invalid("pull", request.image, "tag can't be used with --all-tags/-a", hint="leave the tag away")
    places = engine.registries.to_pull(reference, request.credentials)
    for tag in list(places[-1].tags(Patience())):
        yield from _pull_one(engine, request, reference.replace(tag=tag), hangup)


def _pull_one(engine: Engine, request: PullRequest, reference: Reference, hangup: int) -> Iterator[Message]:
    if reference.digest is not None:
        reference = reference.replace(tag="")
    places = engine.registries.to_pull(reference, request.credentials)
    platform = Platform.parse(request.platform) if request.platform else engine.images.platform
    downloads = engine.registries.downloads
    pulling = Pull(engine.store, downloads, places, reference, platform, all_platforms=request.all_platforms)
    with engine.store.leases.hold() as lease, cancelled_at(hangup, pulling.cancel):
        try:
            is_lazy = request.lazy and (yield from _lazily(engine, request, pulling, lease))
            if not is_lazy:
                yield from pulling.run(lease, engine.snapshots.unpack)
            if request.referrers:
                yield from _keep_referrers(engine, request, reference, lease)
        except OSError as wrong:
            raise Unavailable("pull", reference.familiar, wrong.strerror or str(wrong)) from None
    events.publish(engine, "image", "pull", reference.familiar, {"name": reference.familiar_name})


def _lazily(engine: Engine, request: PullRequest, pulling: Pull, lease: Lease) -> Generator[Message, None, bool]:
    """Make the image run before it is here; tell whether it does."""
    from ..lazy import verb

    if request.all_platforms:
        raise Invalid("pull", request.image, "--lazy is for the one image that is to run here, not for all platforms")
    return (yield from verb.pull(engine, pulling, request.credentials, lease))


def _keep_referrers(engine: Engine, request: PullRequest, reference: Reference, lease: Lease) -> Iterator[Message]:
    target = engine.store.names.get(reference)
    if target is None:
        return  # somebody has removed it meanwhile
    source = Location(transport=REGISTRY, name=str(reference), credentials=request.credentials)
    others = yield from referrers.bring(engine, source, target, lease)
    engine.store.names.put_referrers(target.digest, others)
    yield {"status": f"Kept what refers to it: {len(others)}"}
