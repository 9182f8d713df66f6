"""Results of CNI in every version's form, and lists as libcni reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orlop.network.cni import conflist, result, versions
from orlop.spec.errors import OrlopError

MAC = "02:00:00:00:00:01"
NEW: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": MAC, "mtu": 1400, "sandbox": "/n", "socketPath": "/s", "pciID": "p"}],
    "ips": [
        {"interface": 0, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"address": "10.1.0.3/24"},
        {"address": "fd00::2/64"},
    ],
    "routes": [{"dst": "0.0.0.0/0", "mtu": 1300, "table": 7}, {"dst": "::/0", "gw": "fd00::1"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
OLD = {
    "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
    "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
    "dns": NEW["dns"],
}


def test_a_result_is_told_in_the_form_of_each_version() -> None:
    """Red: with the older forms left out of `versions.told`."""
    assert versions.told(NEW, "1.1.0") == NEW
    plain = versions.told(NEW, "1.0.0")
    assert plain["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": "/n"}]
    assert plain["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}]
    for version in ("0.3.0", "0.3.1", "0.4.0"):
        made = versions.told(NEW, version)
        assert [one["version"] for one in made["ips"]] == ["4", "4", "6"]  # type: ignore[attr-defined]
        assert versions.told(made, "1.0.0") == plain
    for version in ("0.1.0", "0.2.0"):
        made = versions.told(NEW, version)
        assert made == {"cniVersion": version, **OLD}
        assert [one.address for one in result.addresses(made)] == ["10.1.0.2", "fd00::2"]
        again = versions.latest(made)
        assert versions.told(again, version) == made
        with pytest.raises(ValueError):
            versions.told({"cniVersion": "1.0.0", "ips": []}, version)


def test_what_is_no_result_is_left_to_who_reads_it() -> None:
    for odd in ({"ips": "x"}, {"ips": [1]}, {"ip4": 7}, {"ip4": {"routes": 7}}, {"routes": 1, "ips": [{}]}):
        for version in versions.VERSIONS[2:]:
            versions.told(versions.latest(odd), version)
    for broken in ({"ip4": {}}, {"ip4": {"ip": 7}}, {"ip6": {"ip": "x"}}):
        with pytest.raises(ValueError):
            result.addresses(broken)


def test_lists_are_read_as_libcni_reads_them(tmp_path: Path) -> None:
    def read(**more: Any) -> conflist.Conflist:
        place = tmp_path / "n.conflist"
        place.write_text(json.dumps({"name": "n", "plugins": [{"type": "a"}], **more}))
        return conflist.read(str(place))

    assert read().version == "0.1.0"
    assert read(cniVersion="0.2.0").version == "0.2.0"
    assert read(cniVersion="0.3.0", cniVersions=["1.1.0", "0.4.0", "9.9.9"]).version == "1.1.0"
    assert read(disableCheck="True", disableGC=True).disable_check
    for wrong in (
        {"cniVersion": 1},
        {"cniVersions": "1.0.0"},
        {"cniVersions": [1]},
        {"cniVersion": "9.9.9"},
        {"disableCheck": "maybe"},
        {"disableGC": 1},
        {"loadOnlyInlinedPlugins": []},
    ):
        with pytest.raises(OrlopError):
            read(**wrong)
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "a.conf").write_text('{"type": "b"}')
    assert [one["type"] for one in read().plugins] == ["a", "b"]
    assert [one["type"] for one in read(loadOnlyInlinedPlugins="true").plugins] == ["a"]
    (tmp_path / "n" / "b.conf").write_text("{")
    with pytest.raises(OrlopError):
        read()
    (tmp_path / "10-n.conf").write_text('{"cniVersion": "1.0.0", "name": "n", "type": "single"}')
    (tmp_path / "n" / "b.conf").unlink()
    assert conflist.find("n", [str(tmp_path)]).plugins[0]["type"] == "a"  # lists come first
