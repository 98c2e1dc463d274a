"""Files of directions: three formats and three forms say the same, and what does not fit is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from topo_callback.errors import ConfigurationError
from topo_callback.reader.directions import Directions, name_and_file

DEPTH, WIDTH, LAYERS = 4, 6, (1, 2, 4)
VECTORS = np.random.default_rng(0).normal(size=(DEPTH + 1, WIDTH))


def written(path: Path, arrays: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    else:
        torch.save({name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}, path)
    return path


def load(*setting: str | Path) -> Directions:
    return Directions.load(tuple(map(str, setting)), depth=DEPTH, width=WIDTH, layers=LAYERS)


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".pt"])
def test_all_formats_and_forms_give_the_same_unit_vectors(ending: str, tmp_path: Path) -> None:
    forms = {
        "by_layer": {f"model.layer_{layer}": VECTORS[layer] for layer in range(1, DEPTH + 1)},
        "rows": {"directions": VECTORS[1:]},
        "with_embedding": {"directions": VECTORS},
    }
    for name, arrays in forms.items():
        found = load(f"x={written(tmp_path / (name + ending), arrays)}")
        for layer in LAYERS:
            np.testing.assert_allclose(found.vectors["x"][layer], VECTORS[layer] / np.linalg.norm(VECTORS[layer]))
    one = load(written(tmp_path / f"refusal{ending}", {"direction": VECTORS[2]}))
    assert one.names == ("refusal",)
    np.testing.assert_allclose(
        [one.vectors["refusal"][layer] @ VECTORS[2] for layer in LAYERS], np.linalg.norm(VECTORS[2])
    )


def test_length_does_not_count_however_far_it_is_from_1(tmp_path: Path) -> None:
    arrays = {f"layer_{layer}": VECTORS[2] * 2.0**power for layer, power in zip(LAYERS, (0, 1000, -700), strict=True)}
    vectors = load(written(tmp_path / "x.npz", arrays)).vectors["x"]
    assert [vectors[layer].tolist() for layer in LAYERS] == [(VECTORS[2] / np.linalg.norm(VECTORS[2])).tolist()] * 3


def test_a_bare_tensor_and_a_list_of_them_are_taken(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(VECTORS).bfloat16(), tmp_path / "a.pt")
    torch.save([torch.from_numpy(each) for each in VECTORS], tmp_path / "b.pt")
    found = load(tmp_path / "a.pt", tmp_path / "b.pt")
    np.testing.assert_allclose(found.vectors["a"][4], found.vectors["b"][4], atol=0.01)


def test_the_hash_is_of_the_vectors_not_of_the_file(tmp_path: Path) -> None:
    arrays = {f"layer_{layer}": VECTORS[layer] for layer in LAYERS}
    one, other = (load(f"x={written(tmp_path / f'a{ending}', arrays)}") for ending in (".npz", ".pt"))
    assert one.to_run() == other.to_run()
    changed = load(f"x={written(tmp_path / 'b.npz', {**arrays, 'layer_4': VECTORS[0]})}")
    assert changed.to_run() != one.to_run()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"layer_9": VECTORS[0]},
            r"has layer 9, and the model has 0 \(embedding\) to 4; give directions of this model",
        ),
        ({"layer_1": VECTORS[0, :4]}, r"has \[4\] numbers in layer 1, and the model's states have 6"),
        ({"layer_1": VECTORS[:2]}, r"has 2 rows; accepted: one for each of the model's 4 layers"),
        ({"layer_1": VECTORS[0], "layer_2": VECTORS[:2]}, r"has \[2, 6\] numbers in layer 2"),
        ({"layer_1": VECTORS[0] * np.nan}, "a number that is not finite in layer 1; leave that layer out"),
        ({"layer_1": VECTORS[0] * 0}, "is 0 in layer 1, which is not a direction; leave that layer out"),
        ({"layer_3": VECTORS[0]}, r"has layers 3, and read are 1, 2, 4; give TopologyConfig\(layers=...\)"),
        ({"a": VECTORS[0], "b": VECTORS[1]}, "an array named 'a', which ends in no layer; accepted: .npz"),
        ({"layer_1": VECTORS[0], "block_1": VECTORS[1]}, "has layer 1 twice; give each layer once"),
        ({"layer_1": np.array("text")}, r"cannot be read \(.*accepted: .npz, .safetensors or .pt"),
        ({"layer_1": np.array([{}])}, r"cannot be read \(ValueError"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"^directions: 'x' from .*{said}"):
        load(f"x={written(tmp_path / 'a.npz', arrays)}")


def test_files_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    (tmp_path / "a.npz").write_text("1,2")
    torch.save({"layer_1": Path("code")}, tmp_path / "a.pt")
    for name, said in (
        ("none.npz", "cannot be read"), ("a.csv", "a file of another kind"), ("a.npz", "cannot be read"),
        ("a.pt", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=f"{said}.*accepted: .npz"):
            load(f"x={tmp_path / name}")
    monkeypatch.setattr("topo_callback.reader.directions.MOST_BYTES", 100)
    with pytest.raises(ConfigurationError, match="bytes; accepted: at most 100"):
        load(f"x={written(tmp_path / 'large.npz', {'directions': VECTORS})}")


def test_names_are_taken_once_and_can_stand_in_names_of_numbers(tmp_path: Path) -> None:
    file = written(tmp_path / "refusal.npz", {"directions": VECTORS})
    assert name_and_file(f" a b ={file}") == ("a b", file)
    assert name_and_file(str(file))[0] == "refusal"
    with pytest.raises(ConfigurationError, match="the name 'refusal' is taken twice; give another one, as in 'other="):
        load(file, f"refusal={file}")
    for name in ("", "a(b)", "a[b]", "x" * 41, "a\nb"):
        with pytest.raises(ConfigurationError, match="cannot be used; accepted: 1 to 40 printable characters"):
            load(f"{name}={file}")


def test_projections_are_inner_products_in_float64_and_nan_where_there_is_no_vector(tmp_path: Path) -> None:
    found = load(
        f"a={written(tmp_path / 'a.npz', {'layer_1': VECTORS[1], 'layer_4': VECTORS[4]})}",
        f"b={written(tmp_path / 'b.npz', {'directions': VECTORS})}",
    )
    clouds = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 5, WIDTH)).astype(np.float32))
    fields = found.projections(clouds, LAYERS, {4: "invalid"})
    assert fields["direction_names"] == ("a", "b")
    values = fields["projections"]
    assert np.isnan(values[1, 0]).all()
    assert np.isnan(values[2]).all()
    expected = clouds[0].double().numpy() @ VECTORS[1] / np.linalg.norm(VECTORS[1])
    np.testing.assert_allclose(values[0, 0], expected, rtol=1e-12)
    assert Directions().projections(clouds, LAYERS, {}) == {}
