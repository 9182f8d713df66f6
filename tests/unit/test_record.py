"""Records: what goes in comes out, and what does not fit is named by its path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.spec.container import ContainerRequest
from orlop.spec.errors import Invalid
from orlop.spec.record import Record
from orlop.spec.runtime import IdMapping, Memory, Process, Resources, Rlimit, Spec


class Leaf(Record):
    name: str
    size_bytes: int = 0


class Tree(Record):
    leaves: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] = {}
    ratio: float = 0.5
    anything: object = None
    maybe: Leaf | None = None
    flag: bool = False
    json_names = {"by_name": "ByName"}


leaves = st.builds(
    Leaf, name=st.text().filter(lambda text: "\0" not in text), size_bytes=st.integers(-(2**63), 2**64 - 1)
)
trees = st.builds(
    Tree,
    leaves=st.lists(leaves, max_size=3).map(tuple),
    by_name=st.dictionaries(st.text(max_size=5), leaves, max_size=3),
    ratio=st.floats(allow_nan=False),
    maybe=st.none() | leaves,
    flag=st.booleans(),
)


@given(trees)
def test_what_was_written_reads_back_equal(tree):
    assert Tree.from_json(tree.to_json()) == tree


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_value_gives_a_record_or_a_clear_error(value):
    for cls in (Tree, Spec, ContainerRequest):
        try:
            cls.from_json(value, "the request")
        except Invalid as error:
            assert "the request" in str(error)


@pytest.mark.parametrize(
    ("cls", "value", "text"),
    [
        (Leaf, [], "expected an object, found a list"),
        (Leaf, {}, "name: it is required"),
        (Leaf, {"name": None}, "name: it is required"),
        (Leaf, {"name": "a\0b"}, "name: a string can't hold a NUL character"),
        (Leaf, {"name": "x", "sizeBytes": True}, "sizeBytes: expected an integer, found a boolean"),
        (Leaf, {"name": "x", "sizeBytes": 1.0}, "sizeBytes: expected an integer, found a number"),
        (Leaf, {"name": "x", "sizeBytes": 2**64}, "sizeBytes: the integer does not fit into 64 bits"),
        (Tree, {"leaves": [{"name": "x"}, {"name": 5}]}, "leaves[1].name: expected a string, found an integer"),
        (Tree, {"ByName": {"k": {"name": []}}}, "ByName.k.name: expected a string, found a list"),
        (Tree, {"flag": "true"}, "flag: expected a boolean, found the string 'true'"),
        (
            Spec,
            {"ociVersion": "1.2.0", "linux": {"resources": {"memory": {"limit": "5"}}}},
            "linux.resources.memory.limit: expected an integer, found the string '5'",
        ),
        (
            Spec,
            {"ociVersion": "1.2.0", "process": {"cwd": "/", "args": "sh"}},
            "process.args: expected a list, found the string 'sh'",
        ),
        (ContainerRequest, {"image": "x", "memoryBites": 5}, "memoryBites: there is no such field"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(cls, value, text):
    with pytest.raises(Invalid) as caught:
        cls.from_json(value, "the document")
    assert str(caught.value) == f"cannot read the document: {text}"


def test_unknown_fields_of_oci_documents_are_ignored():
    assert Spec.from_json({"ociVersion": "1.2.0", "vm": {"kernel": 1}}) == Spec(oci_version="1.2.0")


def test_json_names_follow_the_specification():
    mapping = IdMapping(container_id=0, host_id=100000, size=65536)
    assert mapping.to_json() == {"containerID": 0, "hostID": 100000, "size": 65536}
    process = Process(cwd="/", no_new_privileges=True, rlimits=(Rlimit(type="RLIMIT_CORE", soft=0, hard=0),))
    assert process.to_json() == {
        "cwd": "/",
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
    }
    assert Resources(memory=Memory(disable_oom_killer=True)).to_json() == {"memory": {"disableOOMKiller": True}}


def test_a_record_is_a_value():
    leaf = Leaf(name="a", size_bytes=3)
    assert leaf == Leaf(name="a", size_bytes=3) != leaf.replace(name="b")
    assert hash(leaf) == hash(Leaf(name="a", size_bytes=3))
    assert repr(leaf) == "Leaf(name='a', size_bytes=3)"
    with pytest.raises(AttributeError, match="immutable"):
        leaf.name = "b"
    with pytest.raises(AttributeError, match="immutable"):
        del leaf.name


def test_a_wrong_construction_is_a_programmers_error():
    with pytest.raises(TypeError, match="needs name"):
        Leaf()
    with pytest.raises(TypeError, match="no field size"):
        Leaf(name="a", size=3)


def test_check_refuses_contradictions_with_the_path():
    class Pair(Record):
        low: int
        high: int

        def check(self):
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}")

    class Holder(Record):
        pair: Pair

    with pytest.raises(Invalid, match=r"pair: low 2 is above high 1"):
        Holder.from_json({"pair": {"low": 2, "high": 1}})


def test_a_shape_that_no_record_can_hold_is_found_at_the_first_decode():
    class Wrong(Record):
        items: list[str] = []

    with pytest.raises(TypeError, match="can't hold"):
        Wrong.from_json({})
