"""The subcommand `topo-callback scan`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo_callback.commands.arguments import (
    USAGE,
    CommandParser,
    add_json,
    add_output_dir,
    add_settings,
    answer,
    file_to_read,
    given_settings,
    not_negative,
    place_to_watch,
    positive,
    seconds,
    url,
)
from topo_callback.commands.runs import add_prompts, prompts_source
from topo_callback.storage import OF_CHECKPOINTS, Stored, is_url, written_back
from topo_callback.terminal import TextStream

if TYPE_CHECKING:
    from topo_callback.config import TopologyConfig
    from topo_callback.scan.affinity import Affinity
    from topo_callback.scan.checkpoint import CheckpointSeries
    from topo_callback.scan.prompts import Prompts
    from topo_callback.scan.scanning import Manner, Scanned

_OUTPUT = "topo-callback-scan"


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "scan",
        usage="topo-callback scan (CHECKPOINT [CHECKPOINT ...] | --watch PLACE) "
        "(--prompts FILE | --prompts-of RUN | --dataset NAME) "
        f"[option ...] {USAGE}",
        help="record the trajectory of checkpoints that are there already, or models side by side",
        description="Reads the same prompts from every checkpoint and writes a trajectory like that of the callback. "
        "The checkpoint-* folders of an output_dir are one trajectory, and so are revisions of one hub model and "
        "models of one shape; others get their own. With --watch it follows a training that goes on. May be "
        "interrupted and run again at any moment. Opens safetensors and JSON only.",
        epilog="examples: topo-callback scan runs/sft --base Qwen/Qwen2.5-0.5B --prompts prompts.txt; topo-callback "
        "scan --watch runs/sft --base Qwen/Qwen2.5-0.5B --prompts prompts.txt --idle 3600",
    )
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="a hub name, NAME@REVISION, a folder with a model or PEFT adapter, or the output_dir of a Trainer; also "
        "the URL of such a folder, such as s3://BUCKET/runs/sft",
    )
    parser.add_argument("--base", metavar="NAME", help="the model that training began with, as step 0")
    parser.add_argument("--separate", action="store_true", help="give models of one shape a trajectory each")
    add_output_dir(parser, _OUTPUT, "where trajectory folders go")
    parser.add_argument(
        "--output-url",
        type=url,
        metavar="URL",
        help="where they go instead, in object storage, such as s3://BUCKET/scans; what is there is gone on with",
    )
    add_json(parser, "each trajectory with what was read, measured and left out, and its verdict")
    _add_watching(parser)
    _add_reading(parser)
    _add_manner(parser)
    parser.later = _add_settings
    parser.set_defaults(run=_scan)


def _add_watching(parser: argparse.ArgumentParser) -> None:
    watching = parser.add_argument_group("following a training from outside")
    watching.add_argument(
        "--watch",
        type=place_to_watch,
        metavar="PLACE",
        help="read each checkpoint that a training writes into this folder or URL (checkpoint-30, step_30 and the "
        "like, up to three levels down), when it is whole and at rest; the folder need not be there yet",
    )
    watching.add_argument(
        "--inside",
        metavar="PATH",
        help="where in each checkpoint its model is, such as actor/huggingface (default: the one model in it)",
    )
    watching.add_argument(
        "--every", type=seconds, default=10.0, metavar="SECONDS", help="time between two looks (default: 10)"
    )
    watching.add_argument("--until", type=positive, metavar="N", help="end when N checkpoints are recorded")
    watching.add_argument(
        "--stop-file",
        type=file_to_read,
        metavar="FILE",
        help="end when this file is there and all that is whole is read",
    )
    watching.add_argument(
        "--idle", type=seconds, metavar="SECONDS", help="end when nothing in PLACE has changed for so long"
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is read")
    prompts = what.add_mutually_exclusive_group(required=True)
    add_prompts(prompts, "all of them are read")
    prompts.add_argument(
        "--dataset", metavar="NAME", help="draw prompts from a hub data set (NAME or NAME:CONFIGURATION) or JSONL file"
    )
    what.add_argument("--tokenizer", metavar="NAME", help="of another model or folder than the checkpoint's own")
    what.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the weights (default: auto, as they are stored)",
    )
    what.add_argument(
        "--autocast",
        choices=("as-trained", "none", "bfloat16", "float16"),
        default="as-trained",
        help="how forward passes are cast (default: as in the run's own trajectory, where there is one)",
    )
    what.add_argument(
        "--attention",
        choices=("as-trained", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
        default="as-trained",
        help="implementation of the attention (default: likewise, else what transformers chooses)",
    )
    what.add_argument(
        "--training-seed",
        type=not_negative,
        metavar="N",
        help="seed that the run was trained with, recorded for compare",
    )
    what.add_argument(
        "--affinity", action="store_true", help="of exactly two models: which layers see the same neighbours"
    )


def _add_manner(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how it is carried out")
    how.add_argument("--jobs", type=positive, default=1, metavar="N", help="checkpoints read side by side (default: 1)")
    how.add_argument(
        "--devices", default="cpu", metavar="NAME[,NAME...]", help="where models go, in turn (default: cpu)"
    )
    how.add_argument("--backend", choices=("loky", "dask", "ray"), default="loky", help="of joblib, for --jobs")
    how.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask or Ray cluster (default: a local one)")
    how.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="read the I-th of N parts; the last part that is done is measured with",
    )
    how.add_argument(
        "--allow-pickle", action="store_true", help="open pickled weights too; they can run code, so trust their maker"
    )


def _add_settings(parser: CommandParser) -> None:
    from topo_callback.setting_changes import watching_settings

    add_settings(parser, unused=watching_settings())


def _scan(given: argparse.Namespace) -> None:
    from topo_callback.errors import ConfigurationError
    from topo_callback.scan.opening import check_device
    from topo_callback.scan.prompts import Prompts
    from topo_callback.scan.running import require_backend
    from topo_callback.scan.scanning import Manner
    from topo_callback.setting_changes import watching_settings

    _check_given(given)
    manner = Manner(
        jobs=given.jobs,
        devices=tuple(given.devices.split(",")),
        backend=given.backend,
        scheduler=given.scheduler,
        shard=given.shard,
        allow_pickle=given.allow_pickle,
    )
    require_backend(manner.backend, manner.jobs)
    if manner.scheduler is not None and manner.backend == "loky":
        raise ConfigurationError("--scheduler is of a Dask or Ray cluster; add --backend dask or --backend ray")
    for device in manner.devices:
        check_device(device)
    unused = tuple(name for name in watching_settings() if given.watch is None or name != "page")
    config = given_settings(given, unused=unused)
    prompts = Prompts(file=prompts_source(given), dataset=given.dataset, tokenizer=given.tokenizer)
    try:
        with written_back(given.output_url) as stored:
            given.output_dir, given.publish = stored or (given.output_dir, lambda: None)
            (_once if given.watch is None else _follow)(given, prompts, config, manner)
    except KeyboardInterrupt:
        sys.stderr.write("topo-callback: interrupted; what is done stays, run the same again to go on\n")
        raise SystemExit(130) from None


def _check_given(given: argparse.Namespace) -> None:
    """What goes with --watch, and what goes without it."""
    from topo_callback.errors import ConfigurationError
    from topo_callback.settings import PREFIX

    if given.output_url is not None and given.output_dir != Path(_OUTPUT):
        raise ConfigurationError("--output-dir and --output-url are two places for the same; give one of them")
    if given.dataset is None and hasattr(given, f"{PREFIX}prompts"):
        raise ConfigurationError(
            "--topo-prompts is how many are drawn from --dataset; others are all read, so leave it out"
        )
    if given.watch is None:
        if not given.checkpoints:
            raise ConfigurationError(
                "no checkpoint is given; name models, checkpoint folders or output_dirs, or --watch"
            )
        options = {
            "--inside": given.inside,
            "--until": given.until,
            "--stop-file": given.stop_file,
            "--idle": given.idle,
        }
        said = "is of --watch"
    else:
        options = {"CHECKPOINT": given.checkpoints or None, "--shard": given.shard}
        options |= {"--affinity": given.affinity or None, "--separate": given.separate or None}
        said = "is not for --watch, which follows one folder"
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(f"{name} {said}; leave it out")


def _here(text: str) -> str:
    """A checkpoint or output_dir on this machine; one in object storage is downloaded."""
    return str(Stored(text).fetch(OF_CHECKPOINTS)) if is_url(text) else text


def _by_url(series: CheckpointSeries, urls: dict[str, str]) -> CheckpointSeries:
    """A series from object storage is told from others by its URL: its mirror is elsewhere on each machine."""
    from topo_callback.scan.checkpoint import digest

    folder = Path(series.checkpoints[-1].source)
    for place in (folder, folder.parent):
        if is_url(urls.get(str(place), "")):
            return replace(series, identity=digest(f"folder {urls[str(place)].rstrip('/')}"))
    return series


def _follow(given: argparse.Namespace, prompts: Prompts, config: TopologyConfig, manner: Manner) -> None:
    from topo_callback.records.results import plain_content
    from topo_callback.scan.course import Until
    from topo_callback.scan.following import Follower
    from topo_callback.scan.terminal import followed_lines

    stored = Stored(given.watch) if isinstance(given.watch, str) else None
    follower = Follower(
        given.watch if stored is None else stored.folder,
        prompts,
        given.output_dir,
        config,
        base=given.base and _here(given.base),
        inside=given.inside,
        reading=_reading(given),
        manner=manner,
        every=given.every,
        identity=None if stored is None else stored.url,
        before_look=(lambda: None) if stored is None else lambda: stored.fetch_or_make(OF_CHECKPOINTS, changing=True),
        after_record=given.publish,
    )
    result = follower.follow(Until(given.until, given.stop_file, given.idle))

    def write(out: TextStream) -> None:
        for line in followed_lines(result):
            out.write(f"{line}\n")

    answer(given, lambda: {**plain_content(result), "verdict": _verdict(result.folder)}, write)


def _once(given: argparse.Namespace, prompts: Prompts, config: TopologyConfig, manner: Manner) -> None:
    from topo_callback.errors import ConfigurationError
    from topo_callback.records.results import plain_content
    from topo_callback.scan.finding import find_series
    from topo_callback.scan.scanning import scan
    from topo_callback.scan.terminal import ProgressBar, affinity_lines, summary_lines

    checkpoints, base = [*map(_here, given.checkpoints)], given.base and _here(given.base)
    series = find_series(checkpoints, base=base, separate=given.separate or given.affinity)
    series = [_by_url(each, dict(zip(checkpoints, given.checkpoints, strict=True))) for each in series]
    if given.affinity and len(series) != 2:
        raise ConfigurationError(f"--affinity is of exactly two models; these are {len(series)}")
    progress = ProgressBar()
    try:
        results = scan(series, prompts, given.output_dir, config, **_reading(given), manner=manner, progress=progress)
    finally:
        progress.end()
    affinity, files = _affinity(results, given.output_dir) if given.affinity else (None, [])

    def content() -> dict[str, Any]:
        found = [
            {**plain_content(result), "verdict": None if result.waiting else _verdict(result.folder)}
            for result in results
        ]
        return {"trajectories": found, "affinity": affinity, "files": files}

    def write(out: TextStream) -> None:
        for result in results:
            for line in summary_lines(result):
                out.write(f"{line}\n")
        if affinity is not None:
            for line in affinity_lines(affinity):
                out.write(f"{line}\n")
            out.write(f"wrote {', '.join(path.name for path in files)} in {given.output_dir}\n")
        elif given.affinity:
            out.write("no affinity yet: one of the two models is not recorded\n")

    answer(given, content, write)


def _reading(given: argparse.Namespace) -> dict[str, Any]:
    reading = {name: getattr(given, name) for name in ("dtype", "autocast", "attention")}
    return {**reading, "seed": given.training_seed}


def _verdict(folder: Path | None) -> dict[str, Any] | None:
    from topo_callback.dynamics.run_verdict import verdict_of_folder

    verdict = None if folder is None else verdict_of_folder(folder)
    return None if verdict is None else verdict.to_dict()


def _affinity(results: list[Scanned], output_dir: Path) -> tuple[Affinity | None, list[Path]]:
    """Of the two models, and the files about it; None while one of them is not recorded."""
    from topo_callback.records.trajectory import Trajectory
    from topo_callback.scan.affinity import affinity_of, write_affinity

    folders = [result.folder for result in results if result.folder is not None and not result.waiting]
    if len(folders) < 2:
        return None, []
    affinity = affinity_of(Trajectory.load(folders[0]), Trajectory.load(folders[1]))
    return affinity, write_affinity(affinity, output_dir)


def _shard(text: str) -> tuple[int, int]:
    part, separator, parts = text.partition("/")
    try:
        shard = int(part), int(parts)
    except ValueError:
        shard = 0, 0
    if not separator or not 1 <= shard[0] <= shard[1]:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: I/N with 1 <= I <= N")
    return shard
