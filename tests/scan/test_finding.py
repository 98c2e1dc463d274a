"""Which trajectories a list of names stands for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from topo_callback.errors import ConfigurationError
from topo_callback.scan import find_series
from topo_callback.scan.checkpoint import Checkpoint
from topo_callback.scan.finding import one_checkpoint


def model(folder: Path, **config: object) -> str:
    """A folder that says what model it holds; no weights are looked at here."""
    folder.mkdir(parents=True)
    shape = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 9, **config}
    (folder / "config.json").write_text(json.dumps(shape))
    return str(folder)


def found(*given: str, **options: object) -> list[tuple[str, list[tuple[int, str]]]]:
    series = find_series(list(given), **options)  # type: ignore[arg-type]
    return [(each.name, [(member.step, member.label) for member in each.checkpoints]) for each in series]


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (1000, 20, 3):
        model(tmp_path / "run" / f"checkpoint-{step}")
    (tmp_path / "run" / "checkpoint-best").mkdir()
    three = [(3, "checkpoint-3"), (20, "checkpoint-20"), (1000, "checkpoint-1000")]
    assert found(str(tmp_path / "run")) == [("run", three)]
    # one of them by itself is of the same run, and named twice it is one
    assert found(str(tmp_path / "run" / "checkpoint-20"), str(tmp_path / "run")) == [("run", three)]
    base = model(tmp_path / "base")
    assert found(str(tmp_path / "run"), base=base) == [("run", [(0, "base"), *three])]


def test_runs_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        model(tmp_path / parent / "Run" / "checkpoint-1")
    names = [name for name, _ in found(str(tmp_path / "a" / "Run"), str(tmp_path / "b" / "Run"))]
    assert len(set(names)) == 2
    assert all(name.startswith("Run-") for name in names)


def test_models_of_one_shape_are_one_trajectory_in_the_order_given(tmp_path: Path) -> None:
    pretrained, tuned = model(tmp_path / "z-base"), model(tmp_path / "a-tuned")
    deeper = model(tmp_path / "deeper", num_hidden_layers=3)
    assert found(pretrained, deeper, tuned) == [
        ("z-base", [(0, "z-base"), (1, "a-tuned")]),
        ("deeper", [(0, "deeper")]),
    ]
    assert [name for name, _ in found(pretrained, tuned, separate=True)] == ["z-base", "a-tuned"]
    assert found(tuned, base=pretrained) == [("a-tuned", [(0, "z-base"), (1, "a-tuned")])]


def test_steps_from_trainer_state_and_names(tmp_path: Path) -> None:
    last, middle = model(tmp_path / "last"), model(tmp_path / "global_step7")
    (tmp_path / "last" / "trainer_state.json").write_text('{"global_step": 12}')
    assert found(last, middle) == [("last", [(7, "global_step7"), (12, "last")])]
    # with one that has no step, all are numbered
    assert found(last, middle, model(tmp_path / "else"))[0][1] == [(0, "last"), (1, "global_step7"), (2, "else")]


def test_revisions_of_a_hub_model() -> None:
    assert found("a/b@step2000", "a/b@step10-tokens1B") == [
        ("a--b", [(10, "a/b@step10-tokens1B"), (2000, "a/b@step2000")])
    ]
    assert found("a/b@main", "a/b@v2")[0][1] == [(0, "a/b@main"), (1, "a/b@v2")]
    assert (one_checkpoint("a/b@v2"), one_checkpoint("a/b")) == (Checkpoint("a/b", "v2"), Checkpoint("a/b"))
    with pytest.raises(ConfigurationError, match=r"no folder '\.\./b', and that is not a hub name"):
        one_checkpoint("../b")


def test_what_is_refused(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one"), model(tmp_path / "other")
    for folder in (one, other):
        (Path(folder) / "trainer_state.json").write_text('{"global_step": 5}')
    with pytest.raises(ConfigurationError, match="one and other are both of step 5"):
        find_series([one, other])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="no model and no checkpoint-"):
        find_series([str(tmp_path / "empty")])
    with pytest.raises(ConfigurationError, match="is a file"):
        find_series([str(tmp_path / "one" / "config.json")])
    with pytest.raises(ConfigurationError, match="no checkpoint is given"):
        find_series([])
