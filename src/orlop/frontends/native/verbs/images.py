"""The verbs `images.*`."""

from ....engine import images
from .call import Args, Call, Nothing, Verb


class NamedImage(Args):
    image: str


class Import(Args):
    name: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""


def _import(call: Call, args: Import) -> object:
    archive = call.only_fd("images.import", "an archive")
    return {"id": images.import_archive(call.engine, archive, args.name, args.changes, args.message)}


VERBS: dict[str, Verb] = {
    "images.list": Verb(Nothing, lambda call, _: images.summaries(call.engine)),
    "images.inspect": Verb(NamedImage, lambda call, args: images.inspect(call.engine, args.image)),
    "images.import": Verb(Import, _import),
}
