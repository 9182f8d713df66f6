"""The verbs `system.*`."""

from .call import Args, Call, Verb


class DiskUsage(Args):
    verify: bool = False


class Check(Args):
    repair: bool = False


def _df(call: Call, args: DiskUsage) -> object:
    from ....engine.images import disk

    return disk.usage(call.engine, verify=args.verify)


def _fsck(call: Call, args: Check) -> object:
    from ....engine.images import fsck

    return fsck.check(call.engine, repair=args.repair)


VERBS: dict[str, Verb] = {
    "system.df": Verb(DiskUsage, _df, lasts=True),
    "system.fsck": Verb(Check, _fsck, lasts=True),
}
