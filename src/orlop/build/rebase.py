"""`rebase`: an image's own layers on another base image, without building anything.

What the image had taken over from the old base (variables, command, labels ...) it takes from the new one; what it had
set itself stays. Its layers are not looked into: a file that it changed in the old base stays as it had made it.
"""

from __future__ import annotations

from orlop.engine.images import listing as images
from orlop.image.archive import write_image
from orlop.spec.errors import Invalid
from orlop.spec.image import ContainerConfig, RootFs
from orlop.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from orlop.engine.engine import Engine
    from orlop.image.image import Image


def rebase(engine: Engine, name: str, old: str, new: str, tag: str = "") -> str:
    """Make the image `name`, which stands on the image old, anew on the image new; return its id.

    tag: what it is called, "" moves the name that was given. Raises NotFound, Invalid when it does not stand on old.
    """
    with engine.store.leases.hold():
        image, before, after = (images.find(engine, one) for one in (name, old, new))
        _check(image, before, after, (name, old, new))
        own = image.layers[len(before.layers) :]
        layers = (*after.layers, *own)
        config = image.config.replace(
            config=_merged(image.config.config, before.config.config, after.config.config),
            rootfs=RootFs(type="layers", diff_ids=tuple(layer.diff_id for layer in layers)),
            cache="",  # it tells of steps on the old base
            history=(*after.config.history, *image.config.history[len(before.config.history) :]),
        )
        target = write_image(engine.store, tuple(layer.descriptor for layer in layers), config)
        wanted = Reference.parse(tag or name).tagged() if tag or image.names else None
        engine.store.names.put(wanted if wanted is None or not wanted.digest else None, target)
        return str(engine.images.load(target).id)


def _check(image: Image, before: Image, after: Image, names: tuple[str, str, str]) -> None:
    name, old, new = names
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    base = tuple(layer.diff_id for layer in before.layers)
    if diff_ids[: len(base)] != base:
        hint = f"see what it stands on with: orlop history {name}"
        raise Invalid("rebase", f"image {name}", f"it does not stand on {old}", hint=hint)
    history = before.config.history
    if image.config.history[: len(history)] != history:
        cause = f"its history does not begin with that of {old}"
        raise Invalid("rebase", f"image {name}", cause, hint="build it anew")
    if (image.config.os, image.config.architecture) != (after.config.os, after.config.architecture):
        cause = f"it is for {image.config.platform}, {new} is for {after.config.platform}"
        raise Invalid("rebase", f"image {name}", cause, hint="name a base for the same platform")


def _merged(own: ContainerConfig, before: ContainerConfig, after: ContainerConfig) -> ContainerConfig:
    """Return a configuration in which what came from one base comes from another."""
    changes: dict[str, object] = {}
    for field in ContainerConfig._fields:
        mine, old, new = getattr(own, field), getattr(before, field), getattr(after, field)
        if field == "env":
            changes[field] = tuple(
                f"{key}={value}" for key, value in _changed(_env(mine), _env(old), _env(new)).items()
            )
        elif isinstance(mine, dict):
            changes[field] = _changed(mine, old, new)
        else:
            changes[field] = new if mine == old else mine
    return own.replace(**changes)


def _changed(mine: Mapping[str, object], old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    """Return new with what mine changed of old."""
    set_here = {key: value for key, value in mine.items() if old.get(key, ...) != value}
    removed = old.keys() - mine.keys()
    return {**{key: value for key, value in new.items() if key not in removed}, **set_here}


def _env(entries: tuple[str, ...]) -> dict[str, object]:
    return dict(entry.partition("=")[::2] for entry in entries)
