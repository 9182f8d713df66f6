"""The pages: an overview, and one container. Facts in, HTML out; no script, and nothing from elsewhere."""

from __future__ import annotations

import time

from ..cli.containers.ps import ports_text
from ..cli.containers.stats import cpu_percent, memory
from ..cli.units import ago, binary_size, epoch_ns, size
from .markup import Markup, join, tag, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .look import Facts

_HEALTH = ("(healthy)", "(unhealthy)", "(health: starting)")
STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #66727f; --line: #e3e7eb; --card: #fff; --back: #f5f6f8;
  --good: #1a7f4b; --bad: #b3261e; --wait: #9a6700; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #97a3af; --line: #2c343c; --card: #1a2027;
  --back: #12161b; --good: #4cc38a; --bad: #ff8a80; --wait: #e3b341; --link: #7ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header { display: flex; gap: 1.5rem; align-items: baseline; padding: 1rem 2rem; background: var(--card);
  border-bottom: 1px solid var(--line); flex-wrap: wrap; }
header h1 { font-size: 1.15rem; margin: 0; } header span { color: var(--soft); }
main { max-width: 90rem; margin: 0 auto; padding: 1rem 2rem 3rem; }
h2 { font-size: 1rem; margin: 1.8rem 0 .5rem; } h2 small { color: var(--soft); font-weight: normal; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .9rem; border-top: 1px solid var(--line); vertical-align: top; }
tr:first-child > th { border-top: 0; } th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td { overflow-wrap: anywhere; } td.number, th.number { text-align: right; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); } .soft { color: var(--soft); }
pre { margin: 0; padding: .9rem; overflow: auto; max-height: 34rem; font: 13px/1.45 ui-monospace, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, monospace; }
"""


def overview(facts: Facts) -> str:
    """Return the first page."""
    info = facts["info"]
    containers, usage, df = facts["containers"], facts["usage"], facts["df"]
    parts = [
        _section("Containers", f"{info['ContainersRunning']} of {info['Containers']} running", _CONTAINERS,
                 [_container_row(one, usage.get(one["Id"])) for one in containers]),
        _section("Images", len(facts["images"]), ("Name", "Id", "Created", "#Size"),
                 [(", ".join(one["names"]) or "<none>", _short(one["id"]), _since(one["created"]), size(one["size"]))
                  for one in facts["images"]]),
        _section("Volumes", len(df["Volumes"] or ()), ("Name", "#Used by", "#Size"),
                 [_volume_row(one) for one in df["Volumes"] or ()]),
        _section("Networks", len(facts["networks"]), ("Name", "Driver", "Subnets", "#Containers"),
                 [_network_row(one) for one in facts["networks"]]),
        _section("Disk", "", ("What", "#Number", "#Size"), _disk_rows(df)),
        _section("Events", "of the last hour", ("When", "What", "Who"), [_event_row(one) for one in facts["events"]]),
    ]  # fmt: skip
    where = (
        f"{info['Name']} · engine {info['ServerVersion']} · Linux {info['KernelVersion']} · {info['NCPU']} processors"
    )
    return page("Orlop", where, parts)


_CONTAINERS = ("Name", "Image", "State", "Health", "Ports", "#Processor", "#Memory")


def _container_row(one: Facts, usage: Facts | None) -> tuple[object, ...]:
    status: str = one["Status"]
    health = next((word for word in _HEALTH if word in status), "")
    used = limit = ""
    if usage and usage.get("cpu_stats"):
        used, limit = f"{cpu_percent(usage):.1f} %", binary_size(memory(usage["memory_stats"])[0])
    return (
        tag("a", _name(one), href=f"/container/{one['Id']}"),
        one["Image"],
        tag("span", status.replace(f" {health}", "") if health else status, class_=_mood(one["State"], status)),
        tag("span", health.strip("()"), class_={"(healthy)": "good", "(unhealthy)": "bad"}.get(health, "wait")),
        ports_text(one),
        used,
        limit,
    )


def _mood(state: str, status: str) -> str:
    if state == "running":
        return "good"
    if state in ("restarting", "paused"):
        return "wait"
    return "soft" if state == "created" or status.startswith("Exited (0)") else "bad"


def _volume_row(one: Facts) -> tuple[object, ...]:
    usage = one.get("UsageData") or {}
    used = usage.get("Size", -1)
    return one["Name"], max(0, usage.get("RefCount", 0)), size(used) if used >= 0 else ""


def _network_row(one: Facts) -> tuple[object, ...]:
    subnets = ", ".join(str(each.get("Subnet", "")) for each in one["IPAM"].get("Config") or ())
    return one["Name"], one["Driver"], subnets, len(one.get("Containers") or ())


def _disk_rows(df: Facts) -> list[tuple[object, ...]]:
    layers = [("Layers of images", len(df["Images"] or ()), size(df["LayersSize"]))]
    written = sum(one.get("SizeRw", 0) for one in df["Containers"] or ())
    volumes = sum(max(0, (one.get("UsageData") or {}).get("Size", 0)) for one in df["Volumes"] or ())
    cache = sum(one.get("Size", 0) for one in df.get("BuildCache") or ())
    return [
        *layers,
        ("What containers wrote", len(df["Containers"] or ()), size(written)),
        ("Volumes", len(df["Volumes"] or ()), size(volumes)),
        ("Build cache", len(df.get("BuildCache") or ()), size(cache)),
    ]


def _event_row(one: Facts) -> tuple[object, ...]:
    actor = one.get("Actor") or {}
    who = (actor.get("Attributes") or {}).get("name") or _short(str(actor.get("ID", "")))
    moment = time.strftime("%H:%M:%S", time.localtime(one.get("time", 0)))
    return tag("span", moment, class_="soft"), f"{one.get('Type')} {one['Action']}", who


def container(facts: Facts) -> str:
    """Return the page of one container."""
    found, why = facts["inspect"], facts["why"]
    config, state, host = found["Config"], found["State"], found["HostConfig"]
    health = (state.get("Health") or {}).get("Status", "")
    rows = [
        ("State", f"{state['Status']}{f', {health}' if health else ''}"),
        ("Why", _why(why)),
        ("Image", config["Image"]),
        ("Command", tag("code", " ".join([found["Path"], *found["Args"]]))),
        ("Created", _since(found["Created"])),
        ("Process", state["Pid"] or ""),
        ("Restarts", f"{host['RestartPolicy']['Name'] or 'no'}, {found['RestartCount']} so far"),
        ("Networks", ", ".join(_addresses(found))),
        ("Mounts", join([tag("div", tag("code", _mount(one))) for one in found["Mounts"]])),
        ("Environment", ", ".join(sorted(word.partition("=")[0] for word in config["Env"] or ()))),
        ("Labels", join([tag("div", tag("code", f"{key}={value}")) for key, value in _labels(config)])),
    ]
    name = found["Name"].removeprefix("/")
    said = (
        tag("pre", facts["log"])
        if facts["log"]
        else tag("pre", facts["log_wrong"] or "It said nothing.", class_="soft")
    )
    parts = [
        tag("p", tag("a", "← all", href="/")),
        _table((), [(tag("span", key, class_="soft"), value) for key, value in rows if value not in ("", Markup())]),
        tag("h2", "Log ", tag("small", "its end; values of the environment are not shown here")),
        tag("div", said, class_="scroll"),
    ]
    return page(f"{name} · Orlop", _short(found["Id"]), parts)


def _why(why: Facts) -> Markup:
    lines = [why["summary"], *why["facts"], *([f"Next: {why['remedy']}"] if why["remedy"] else [])]
    return join([tag("div", line) for line in lines])


def _addresses(found: Facts) -> list[str]:
    networks = found["NetworkSettings"]["Networks"] or {}
    return [f"{name} {one.get('IPAddress') or ''}".strip() for name, one in networks.items()]


def _mount(one: Facts) -> str:
    source = one.get("Name") or one.get("Source") or one["Type"]
    return f"{source} → {one['Destination']}{'' if one.get('RW') else ' (ro)'}"


def _labels(config: Facts) -> list[tuple[str, str]]:
    return sorted((config.get("Labels") or {}).items())


def wrong(title: str, cause: str) -> str:
    """Return the page of an error."""
    return page(title, "", [tag("p", cause), tag("p", tag("a", "← all", href="/"))])


def page(title: str, where: str, parts: Sequence[Markup]) -> str:
    """Return a whole page."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width"),
        tag("title", title),
        tag("link", rel="stylesheet", href="/style.css"),
    )
    top = tag("header", tag("h1", title), tag("span", where))
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', top, tag('main', *parts)), lang='en')}\n"


def _section(title: str, more: object, titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    shown = _table(titles, rows) if rows else tag("p", "none", class_="soft")
    return join([tag("h2", f"{title} ", tag("small", more)), shown])


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table; a column whose title begins with # is one of numbers."""
    kinds = ["number" if title.startswith("#") else "" for title in titles]
    head = tag("tr", *(_cell("th", title.lstrip("#"), kind) for title, kind in zip(titles, kinds, strict=True)))
    body = [tag("tr", *(_cell("td", cell, kinds[at] if kinds else "") for at, cell in enumerate(row))) for row in rows]
    return tag("div", tag("table", *([head] if titles else []), *body), class_="scroll")


def _cell(name: str, content: object, kind: str) -> Markup:
    return tag(name, content, class_=kind) if kind else tag(name, content)


def _name(one: Facts) -> Markup:
    return text(", ".join(name.removeprefix("/") for name in one["Names"]))


def _short(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]


def _since(moment: str) -> str:
    found = epoch_ns(moment)
    return ago(found / 1e9) if found else moment
