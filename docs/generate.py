"""mkdocs hook: pages that are made from the code and from files outside docs/, so that nothing is written twice.

- reference/settings.md: every field of TopologyConfig; reference/commands.md: every subcommand; reference/python.md:
  the public names, whose docstrings mkdocstrings puts in.
- benchmarks/*: the measured results, with their pictures; changelog.md.

A link from a page to a file of the repository that is no page of the site becomes its text; one to a file that does
not exist stops the build.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from public import python_page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s#]*)(#[^)\s]*)?\)")
_GROUP = re.compile(r"^    # (.+)$|^    (\w+): .* = _knob\(", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/python.md": python_page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "benchmarks").iterdir()):
        if path.suffix in (".md", ".png"):
            files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to pages of the site where the target is one of them, plain text where it is another file."""
    here = repository_path(page.file.src_uri)

    def replaced(found: re.Match[str]) -> str:
        picture, words, target, anchor = found.groups()
        if not target:
            return found[0]
        path = PurePosixPath(os.path.normpath(here.parent / target))
        place = site_path(path)
        if files.get_file_from_path(place) is not None:
            relative = os.path.relpath(place, PurePosixPath(page.file.src_uri).parent)
            return f"{picture}[{words}]({PurePosixPath(relative)}{anchor or ''})"
        if picture or not (ROOT / path).exists():
            raise PluginError(f"{here}: a link to {target}, which does not exist")
        return words

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings name pages as files of the repository, docs/measures.md: links, on the page of the docstrings."""
    if page.file.src_uri != "reference/python.md":
        return html

    def linked(found: re.Match[str]) -> str:
        place = found[1]
        if files.get_file_from_path(f"{place}.md") is None:
            raise PluginError(f"a docstring names docs/{place}.md, which does not exist")
        return f'<a href="{os.path.relpath(place, "reference")}.html">docs/{place}.md</a>'

    return re.sub(r"docs/([\w/-]+)\.md", linked, html)


def repository_path(place: str) -> PurePosixPath:
    """Where the source of a page is in the repository."""
    if place.startswith("benchmarks/"):
        return PurePosixPath(place)
    return PurePosixPath("CHANGELOG.md") if place == "changelog.md" else PurePosixPath("docs") / place


def site_path(path: PurePosixPath) -> str:
    """Where a file of the repository would be in the site."""
    if path.parts[:1] == ("docs",):
        return str(PurePosixPath(*path.parts[1:]))
    return "changelog.md" if str(path) == "CHANGELOG.md" else str(path)


def cell(text: str) -> str:
    """Text of the code as Markdown: on one line, without what would be read as a column or a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# settings


def setting_groups() -> list[tuple[str, list[dataclasses.Field[Any]]]]:
    """The fields of TopologyConfig under the headings that its source has."""
    from topo_callback.config import TopologyConfig

    fields = {field.name: field for field in dataclasses.fields(TopologyConfig)}
    groups: list[tuple[str, list[dataclasses.Field[Any]]]] = []
    for heading, name in _GROUP.findall(inspect.getsource(TopologyConfig)):
        if heading:
            groups.append((heading, []))
        else:
            groups[-1][1].append(fields.pop(name))
    assert not fields, f"without a heading: {sorted(fields)}"
    return groups


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value) or "none"
    return f"`{value}`"


def settings_page() -> str:
    from topo_callback.presets import PRESETS
    from topo_callback.reading_conditions import CONDITIONS

    lines = [(ROOT / "docs" / "reference" / "settings-head.txt").read_text()]
    for heading, fields in setting_groups():
        lines.append(f"## {heading[0].upper()}{heading[1:]}\n")
        lines.append("| setting | default | what it does | alters |\n|---|---|---|---|")
        for field in fields:
            default = "see below" if field.name == "measures" else shown(field.default)
            if field.name.endswith("_bytes") and field.default:
                default = f"`{field.default >> 30} << 30` ({field.default >> 30} GiB)"
            lines.append(
                f"| `{field.name}` | {default} | {cell(field.metadata['help'])} | {field.metadata['alters']} |"
            )
            if field.name == "measures":
                measures = field.default
        lines.append("")
    lines.append("By default `measures` are " + ", ".join(f"`{each}`" for each in measures) + ".\n")
    lines.append("## Presets\n\nThe settings in which each differs from the defaults.\n")
    lines.append("| preset | settings |\n|---|---|")
    for name, changes in PRESETS.items():
        said = "; ".join(f"`{key}`: {shown(value)}" for key, value in changes.items())
        lines.append(f"| `{name}` | {said or 'the defaults'} |")
    lines += ["", changes_text()]
    lines.append("| condition | alters | what makes two readings alike in it |\n|---|---|---|")
    lines += [f"| {each.words} | {each.alters} | {cell(each.remedy)} |" for each in CONDITIONS]
    return "\n".join(lines) + "\n"


def changes_text() -> str:
    """The end of the page, with lists of settings in the places that braces mark."""
    from topo_callback.config import TopologyConfig
    from topo_callback.setting_effects import draws_nothing, names_numbers

    text = (ROOT / "docs" / "reference" / "settings-tail.txt").read_text()
    fields = dataclasses.fields(TopologyConfig)
    lists: dict[str, list[str]] = {}
    for field in fields:
        lists.setdefault(field.metadata["alters"], []).append(field.name)
        comparable = field.metadata["effect"].comparable
        if comparable not in (None, draws_nothing):
            lists.setdefault("adding" if comparable is names_numbers else "switching", []).append(field.name)
    del lists["nothing"]
    for place, names in lists.items():
        assert f"{{{place}}}" in text, place
        text = text.replace(f"{{{place}}}", ", ".join(f"`{name}`" for name in names))
    assert "{" not in text, "a place in settings-tail.txt has no list"
    return text


# commands


def subcommands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    from topo_callback.cli import build_parser

    (chosen,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    helps = {each.dest: each.help or "" for each in chosen._choices_actions}
    for name, parser in chosen.choices.items():
        parser.complete()
        yield name, helps.get(name, ""), parser


def option_name(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return f"`{name}`"
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest)
    value = value if isinstance(value, str) else " ".join(value)
    return f"`{name} {value if action.metavar or action.choices else value.upper()}`" if name else f"`{value}`"


def described(action: argparse.Action) -> str:
    said = (action.help or "") % {"default": action.default, "prog": "topo-callback", "choices": action.choices}
    plain = isinstance(action.default, (int, float, str, Path)) and not isinstance(action.default, bool)
    if plain and "default" not in said and action.default != argparse.SUPPRESS and action.default != "":
        said = f"{said} (default: `{action.default}`)" if said else f"default: `{action.default}`"
    return cell(said)


def commands_page() -> str:
    lines = [
        "# Commands\n",
        "`--help` of each command says the same. The exit status is 0 if the command worked, 1 if `events --fail-on` "
        "found what it names, and 2, with one line on standard error, if the command refused. [`verify`](#verify) has "
        "statuses of its own, and an interrupted `scan` ends with 130. With `--json` a command prints one JSON object "
        "on standard output and nothing else there; an undefined number is null. `TOPO_DEBUG=1` in the environment "
        "shows the whole error.\n",
        "| command | what it does |\n|---|---|",
    ]
    every = list(subcommands())
    lines += [f"| [`{name}`](#{name}) | {cell(said)} |" for name, said, _ in every] + [""]
    for name, said, parser in every:
        lines.append(f"## {name}\n\n{cell(parser.description or said[:1].upper() + said[1:] + '.')}\n")
        usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ").replace("[-h] ", "")).strip()
        usage = textwrap.fill(usage, 88, subsequent_indent="    ", break_on_hyphens=False)
        lines.append(f"```text\n{usage}\n```\n")
        actions = [each for each in parser._actions if each.dest != "help" and each.help != argparse.SUPPRESS]
        # the settings have a page of their own
        actions = [each for each in actions if not each.dest.startswith("topo_")]
        if actions:
            lines.append("| argument | meaning |\n|---|---|")
            lines += [f"| {option_name(each)} | {described(each)} |" for each in actions]
            lines.append("")
        if parser.epilog:
            lines.append(f"{cell(parser.epilog)}\n")
    return "\n".join(lines) + "\n"
