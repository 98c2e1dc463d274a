"""The files of the controls: controls.json and controls.png. Both are made before the first of them is written."""

from __future__ import annotations

import json
from pathlib import Path

from topo_callback.controls.content import content
from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.figure import controls_figure
from topo_callback.errors import RecordError
from topo_callback.figures.comparison_figures import encode_figure
from topo_callback.records.record import write_whole


def write_controls(controls: ZigzagControls, folder: Path) -> list[Path]:
    """Write `controls.json`, and `controls.png` where there is something to draw.

    Files of the same names are replaced, each whole or not at all.

    Returns:
        The files written, controls.json last.

    Raises:
        RecordError: the folder or a file cannot be written.
    """
    files: dict[str, bytes] = {}
    figure = controls_figure(controls)
    if figure is not None:
        files["controls.png"] = encode_figure(figure, "png")
    text = json.dumps(content(controls), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    files["controls.json"] = (text + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise RecordError(f"{folder}: the controls cannot be written ({error.strerror or error})") from error
    return [folder / name for name in files]
