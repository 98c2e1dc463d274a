"""report_page: one self-contained HTML page about one run or several.

The page asks no network for anything: its policy (content-security-policy) refuses every load, and allows one style
sheet and one script by their hashes. Numbers are in it as JSON, exactly as recorded.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from topo_callback.dynamics import Event
from topo_callback.dynamics.checkpoints import checkpoint_answers
from topo_callback.dynamics.events import events_of_run
from topo_callback.dynamics.reorganisation import UNMEASURED, rates_in_words
from topo_callback.dynamics.run_verdict import verdict_of
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.libraries import versions
from topo_callback.page.across import Across, across
from topo_callback.page.chart_data import check, run_content, shown
from topo_callback.page.cycles import cycles
from topo_callback.page.directions import directions_table, words_section
from topo_callback.page.groups import groups_table
from topo_callback.page.markup import embedded_json, items, part, plain, safe, table
from topo_callback.page.origin import created, damaged, origin
from topo_callback.page.prompts import moved_prompts
from topo_callback.page.summary import summary, undefined
from topo_callback.records.record import write_whole
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted

SCRIPTS = (
    "basics.js", "lines.js", "grid.js", "homology.js", "groups.js", "numbers.js", "map.js", "directions.js", "words.js",
    "sections.js",
)  # fmt: skip


def report_page(
    trajectories: Trajectory | Sequence[Trajectory],
    *,
    objectives: Sequence[str] | None = None,
    axis: str = "step",
    prompts: Sequence[str] | None = None,
    words: bool = False,
) -> str:
    """The page as text.

    Args:
        trajectories: one run, or several to look at beside each other.
        objectives: for each run the objective it was trained for; with two or more of them the page holds the tests
            of `topo_callback.comparison`. Runs that cannot be compared are shown singly, and the page says why.
        axis: what runs are aligned on: step, progress or clock.
        prompts: the texts of the probe in its order, shown beside the loops they form and on the map. None: no text is
            shown.
        words: show what the drift says in words where it is recorded; so does `prompts`. Tokens can echo the training
            data.

    Returns:
        Deterministic for equal folders. Under 10 MB: where numbers of single layers, bars or matrices would be more,
        fewer samples or only the longest bars are kept, and the page says so.

    Raises:
        RecordError: a run has no readable sample.
        ConfigurationError: no run, or not one objective for each.
        ProbeError: not as many prompts as the probe has points.
    """
    runs = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not runs:
        raise ConfigurationError("no run given; a report needs at least one")
    if objectives is not None and len(objectives) != len(runs):
        raise ConfigurationError(f"{len(objectives)} objectives given for {len(runs)} runs; give one for each")
    for run in runs:
        check(run, prompts)
    names = _names(runs, objectives)
    found = {run.folder: events_of_run(run) for run in runs}
    compared = across(runs, _tested(objectives), axis) if len(runs) > 1 else Across("")
    content = {
        "runs": [
            run_content(
                run,
                name,
                share=len(runs),
                events=found[run.folder],
                prompts=prompts,
                words=words or prompts is not None,
            )
            for run, name in zip(runs, names, strict=True)
        ],
        "across": dict(compared.content) or None,
    }
    style = _resource("page.css")
    script = "(() => {\n" + "\n".join(_resource(name) for name in SCRIPTS) + "\n})();"
    return Template(_resource("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        title=safe(names[0] if len(runs) == 1 else counted(len(runs), "run"), 80),
        subtitle=safe(_subtitle(runs), 200),
        summary=_each(runs, names, lambda run: _summary(run, found[run.folder], len(runs))),
        checkpoints=_section(
            "checkpoints",
            "Stop, or which checkpoint",
            _each(runs, names, lambda run: checkpoints(run, found[run.folder])),
        ),
        events=_section("events", "Events", _each(runs, names, lambda run: events(found[run.folder]))),
        groups=_section("groups", "Groups of prompts", _groups(runs, names)),
        directions=_section("directions", "Directions", _directions(runs, names)),
        words=_section("words", "Drift in words", _words(runs, names, shown=words or prompts is not None)),
        prompts=_section("prompts", "Prompts", _each(runs, names, lambda run: moved_prompts(run, prompts))),
        loops=_section("loops", "Prompts behind the loops", _loops(runs, names, prompts)),
        undefined=_each(runs, names, undefined),
        comparison=_section("comparison", "Comparison", compared.markup),
        origin=origin(runs, names),
        version=safe(versions(("topo_callback",)).get("topo_callback", "")),
        data=embedded_json(content),
    )


def write_page(path: Path, page: str) -> Path:
    """Write the page, whole or not at all; missing folders are made.

    Raises:
        RecordError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{plain(path)}: the report cannot be written ({error})") from error
    return path


def _summary(run: Trajectory, found: Sequence[Event], share: int) -> str:
    """The verdict, and below it, folded, what it rests on."""
    evidence = items([*summary(run), *_thinned(run, share)])
    return (
        f"{damaged(run)}{verdict_markup(verdict_of(run, found))}"
        '<details class="evidence"><summary>What it rests on</summary><p class="muted">\N{PLUS-MINUS SIGN} is the 95 % '
        f"interval over prompts; other seeds are not in it.</p>{evidence}</details>"
    )


def verdict_markup(verdict: Verdict) -> str:
    """Three numbers, large, and a sentence."""
    figures = "".join(
        f"<div><dt>{safe(_begun(figure.label))}</dt><dd><strong>{_unbroken(_begun(figure.value))}</strong> "
        f'<span class="muted">{_unbroken(figure.detail)}</span></dd></div>'
        for figure in verdict.figures
    )
    return f'<dl class="verdict">{figures}</dl><p class="sentence">{_unbroken(verdict.sentence)}</p>'


def _unbroken(text: str) -> str:
    """A text for the page in which no number is torn from its interval or its unit."""
    kept = safe(text, 1200)
    for apart in (" \N{PLUS-MINUS SIGN} ", " %"):
        kept = kept.replace(apart, apart.replace(" ", "\N{NO-BREAK SPACE}"))
    return kept


def _thinned(run: Trajectory, share: int) -> list[str]:
    """How many samples the charts and the table have, where these are not all."""
    fewer = len(shown(run, share).steps)
    if fewer == len(run.steps):
        return []
    return [
        f"Charts and table have {fewer:,} of the {len(run.steps):,} samples, evenly spaced; the sentences have all."
    ]


def _tested(objectives: Sequence[str] | None) -> Sequence[str] | None:
    return objectives if objectives is not None and len(set(objectives)) > 1 else None


def _names(runs: Sequence[Trajectory], objectives: Sequence[str] | None) -> list[str]:
    """What the page calls each run: its objective and seed, or its model, and the folder."""
    names = []
    for place, run in enumerate(runs):
        model = part(run.run, "model")
        name = str(model.get("name") or model.get("class") or "")
        own = plain(Path(name).name if Path(name).is_absolute() else name, 60)  # a folder of this machine says nothing
        if objectives is not None:
            seed = part(run.run, "training").get("seed")
            own = plain(objectives[place], 60) + ("" if seed is None else f", seed {plain(seed, 20)}")
        names.append(" \N{MIDDLE DOT} ".join(filter(None, (own, plain(run.folder.name, 60)))))
    return names


def _subtitle(runs: Sequence[Trajectory]) -> str:
    if len(runs) > 1:
        return ""
    parts = (created(runs[0]), f"probe {plain(part(runs[0].run, 'probe').get('hash', '?'), 160)[:12]}", runs[0].state)
    return " \N{MIDDLE DOT} ".join(filter(None, parts))


def _each(runs: Sequence[Trajectory], names: Sequence[str], make: Callable[[Trajectory], str]) -> str:
    """A part for every run, under its name where there are several; empty parts are left out."""
    found = [(name, make(run)) for run, name in zip(runs, names, strict=True)]
    if len(runs) == 1:
        return found[0][1]
    parts = [f'<div class="of-run"><h3>{safe(name, 120)}</h3>{text}</div>' for name, text in found if text]
    return f'<div class="each">{"".join(parts)}</div>' if parts else ""


def _loops(runs: Sequence[Trajectory], names: Sequence[str], prompts: Sequence[str] | None) -> str:
    return "" if prompts is None else _each(runs, names, lambda run: cycles(run, prompts))


def _groups(runs: Sequence[Trajectory], names: Sequence[str]) -> str:
    tables = _each(runs, names, groups_table)
    return f'{tables}<div id="group-charts" class="panels"></div>' if tables else ""


def _directions(runs: Sequence[Trajectory], names: Sequence[str]) -> str:
    tables = _each(runs, names, directions_table)
    return f'{tables}<div id="direction-charts" class="panels"></div>' if tables else ""


def _words(runs: Sequence[Trajectory], names: Sequence[str], *, shown: bool) -> str:
    """Drawn once, for the run that is chosen on the page; or one line for each run that has some."""
    if shown:
        return next(filter(None, (words_section(run, shown=True) for run in runs)), "")
    return _each(runs, names, lambda run: words_section(run, shown=False))


def _section(name: str, title: str, content: str) -> str:
    if not content:
        return ""
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def _resource(name: str) -> str:
    return resources.files("topo_callback.page").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def events(found: Sequence[Event]) -> str:
    """A table of the steps at which events were known, their kind, level and explanation, and how often quiet runs are
    told such; empty without events."""
    rows = [
        (
            str(event.known_at),
            f"{plain(event.kind.replace('_', ' '), 40)}, {_level(event)}",
            plain(event.explanation, 500),
        )
        for event in found
    ]
    if not rows:
        return ""
    rates = "".join(f'<p class="note">False alarms of {plain(line, 200)}.</p>' for line in rates_in_words(found))
    return table(("step", "event", "explanation"), rows) + rates


def checkpoints(trajectory: Trajectory, found: Sequence[Event]) -> str:
    """What the record says about stopping and checkpoints: question, answer and evidence in one paragraph each."""
    answers = checkpoint_answers(trajectory, found)
    return "".join(
        f"<p>{safe(each.question)} <strong>{safe(_begun(each.answer))}</strong>. "
        f'<span class="muted">{safe(_begun(each.evidence), 300)}.</span></p>'
        for each in answers
    )


def _begun(text: str) -> str:
    """A text as it begins a sentence."""
    return text[:1].upper() + text[1:]


def _level(event: Event) -> str:
    return event.level if event.measured else f"{event.level}; {UNMEASURED}"
