"""That what lies in tests/fuzz is shown to a parser: no corpus without a target, no file that a run leaves out."""

from __future__ import annotations

from fuzz import test_fuzz, test_fuzz_bodies, test_fuzz_build, test_fuzz_wire
from orlop.spec.errors import Internal
from support.fuzzing import CORPUS, CORPUS_BYTES_MAX, CORPUS_FILES_MAX, INPUTS_DEFAULT, REGRESSIONS, Target, each

TARGETS = (*test_fuzz.TARGETS, *test_fuzz_bodies.TARGETS, *test_fuzz_build.TARGETS, *test_fuzz_wire.TARGETS)
# What is read from others' hands, and must have a corpus whatever else has one.
WANTED = {
    "runtime-spec", "tar", "image-manifest", "reference", "dockerfile", "http-request", "netlink", "seccomp-profile",
}  # fmt: skip


def test_each_corpus_is_a_targets_and_each_target_has_one() -> None:
    names = {target.name for target in TARGETS}
    assert len(names) == len(TARGETS)
    assert {path.name for path in CORPUS.iterdir()} == names >= WANTED
    for path in REGRESSIONS.iterdir():
        assert path.name.rpartition("-")[0] in names, path


def test_a_defect_of_ours_is_no_refusal() -> None:
    assert all(Internal not in target.refusals for target in TARGETS)


@each(TARGETS)
def test_a_short_run_shows_all_of_it(target: Target) -> None:
    """Each file once, as it is, before anything is made of it, and as many mutated ones as a run of CI has."""
    files = {path.name: path.read_bytes() for path in (CORPUS / target.name).iterdir()}
    assert 0 < len(files) <= CORPUS_FILES_MAX
    assert max(map(len, files.values())) <= max(CORPUS_BYTES_MAX, *map(len, target.seeds))
    shown: list[bytes] = []
    Target(target.name, shown.append, target.seeds, ()).attack(0, 0)
    known = [*target.seeds, *target.corpus()]
    assert sorted(shown[: len(known)]) == sorted(known)
    assert len(shown) == len(known) + INPUTS_DEFAULT
