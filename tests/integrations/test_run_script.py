"""`topo-callback run`: a script runs as under Python itself, and the Trainers in it are watched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiers import slow_case

from topo_callback import Trajectory

TESTS = Path(__file__).parents[1]
RUN = (sys.executable, "-m", "topo_callback", "run")
NOTHING = "nothing was watched"
PATIENT = "drain_seconds: 200\ngeneral_text: 4\n"  # a busy machine needs longer than the default

TRAINING = """
import sys

early = sorted({"torch", "transformers", "numba"} & set(sys.modules))
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

tokenizer = tiny_tokenizer()
encoded = tokenizer([f"text {i} is about {i * 7 % 5}" for i in range(16)], padding="max_length", max_length=16)
rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
args = TrainingArguments(
    sys.argv[1], max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to=[], disable_tqdm=True
)
Trainer(tiny_llama(tokenizer, layers=3), args, train_dataset=rows, processing_class=tokenizer).train()
print("loaded before the script:", early)
"""


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **variables}


def run(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=280
    )


def write(folder: Path, text: str, name: str = "script.py") -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(textwrap.dedent(text))
    return name


@pytest.mark.parametrize(
    ("name", "words"),
    [("script.py", ["script.py"]), ("inner/script.py", ["inner/script.py"]), ("app/__main__.py", ["app"])],
)
def test_a_script_sees_what_python_shows_it(name: str, words: list[str], tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 3", str(Path(name).parent / "neighbour.py"))
    write(
        tmp_path,
        """
        import os, sys, neighbour
        main = sys.modules["__main__"]
        print(__name__, sys.argv[1:], os.path.abspath(sys.argv[0]), os.path.abspath(sys.path[0]), neighbour.VALUE)
        print(os.path.abspath(main.__file__), main.neighbour is neighbour, os.getcwd())
        """,
        name,
    )
    arguments = ["--topo-seed", "1", "-m", "-h", "--", "last"]
    alone = run(sys.executable, *words, *arguments, folder=tmp_path)
    watched = run(*RUN, "--topo-seed=2", *words, *arguments, folder=tmp_path)
    assert watched.stdout == alone.stdout != ""
    assert watched.returncode == alone.returncode == 0
    assert watched.stderr.count("\n") == 1
    assert NOTHING in watched.stderr


def test_a_module_sees_what_python_shows_it(tmp_path: Path) -> None:
    write(tmp_path, "", "package/__init__.py")
    write(tmp_path, "from package import __name__ as n\nimport sys\nprint(n, __name__, sys.argv)", "package/train.py")
    alone = run(sys.executable, "-m", "package.train", "--x", folder=tmp_path)
    watched = run(*RUN, "-m", "package.train", "--x", folder=tmp_path)
    assert watched.stdout == alone.stdout != ""


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(3)",
        slow_case("import sys; sys.exit('gone')"),
        "def f():\n    raise ValueError('from f')\ntry:\n    f()\nexcept ValueError:\n    1 / 0",
        slow_case("def f(:\n    pass"),
        slow_case("import missing_package"),
        "raise KeyboardInterrupt",
        slow_case("import os; os._exit(9)"),
        "import os; os.kill(os.getpid(), 15)",
        "import sys\nsys.excepthook = lambda *what: print('own hook', what[0], file=sys.stderr)\n1 / 0",
    ],
)
def test_exit_codes_and_tracebacks_are_those_of_the_script(text: str, tmp_path: Path) -> None:
    script = write(tmp_path, text)
    alone = run(sys.executable, script, folder=tmp_path)
    watched = run(*RUN, script, folder=tmp_path)
    said = "".join(line for line in watched.stderr.splitlines(keepends=True) if NOTHING not in line)
    assert (watched.returncode, watched.stdout, said) == (alone.returncode, alone.stdout, alone.stderr)


def test_an_interrupt_is_the_scripts(tmp_path: Path) -> None:
    # to the process itself, so that it always comes at the same line, also where what runs the tests ignores it
    own = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = write(tmp_path, f"import os, signal\n{own}\nos.kill(os.getpid(), signal.SIGINT)\nprint('never here')")
    alone = run(sys.executable, script, folder=tmp_path)
    watched = run(*RUN, script, folder=tmp_path)
    assert (watched.returncode, watched.stdout, watched.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert watched.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in watched.stderr


@pytest.mark.slow
def test_what_cannot_be_run_is_said_in_one_line(tmp_path: Path) -> None:
    for words, message in (
        (["missing.py"], "no script missing.py; give a file, or -m"),
        (["trl", "sft"], "topo-callback run -m trl.scripts.sft"),
        (["llamafactory-cli", "train", "sft.yaml"], "topo-callback run -m llamafactory.launcher"),
        (["axolotl", "train", "sft.yaml"], "topo_callback.integrations.axolotl.TopologyPlugin"),
        (["--topo-seed", "one", "missing.py"], "--topo-seed='one'; accepted: a whole number"),
        (["--topo-config", "missing.yaml", "missing.py"], "missing.yaml cannot be read"),
    ):
        ended = run(*RUN, *words, folder=tmp_path)
        assert ended.returncode == 2
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1
    ended = run(*RUN, "--topo-sed", "1", "script.py", folder=tmp_path)
    assert ended.returncode == 2
    assert "--topo-sed" in ended.stderr


def test_help_names_every_setting(tmp_path: Path) -> None:
    ended = run(*RUN, "--help", folder=tmp_path)
    assert ended.returncode == 0
    assert "--topo-max-overhead VALUE" in ended.stdout
    assert "accelerate launch" in ended.stdout


@pytest.mark.slow
def test_a_trainer_is_watched_with_settings_from_everywhere(tmp_path: Path) -> None:
    script = write(tmp_path, TRAINING)
    write(
        tmp_path, "prompts: 8\nneighbours: 2\nmeasures: [scale, mutual_knn]\nlayers: all\n" + PATIENT, "topology.yaml"
    )
    ended = run(
        *RUN, "--topo-config", "topology.yaml", "--topo-steps", "0,2", script, "out",
        folder=tmp_path, TOPO_NEIGHBOURS="3",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("loaded before the script: []\n")
    assert NOTHING not in ended.stderr
    trajectory = Trajectory.load(tmp_path / "out")
    assert trajectory.steps == (0, 2)
    (described,) = (tmp_path / "out/topology").glob("*/run.json")
    config = json.loads(described.read_text())["config"]
    assert (config["prompts"], config["neighbours"], config["measures"]) == (8, 3, ["scale", "mutual_knn"])


@pytest.mark.slow
def test_a_script_that_is_told_not_to_be_watched_is_not(tmp_path: Path) -> None:
    script = write(tmp_path, TRAINING)
    ended = run(*RUN, script, "out", folder=tmp_path, TOPO_DISABLED="1")
    assert ended.returncode == 0, ended.stderr
    assert "topology" not in ended.stderr
    assert not (tmp_path / "out/topology").exists()


ACCELERATE = ("accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "ranks"), [(ACCELERATE, 1), (TORCHRUN, 2)], ids=["accelerate", "torchrun"])
def test_a_launched_script_is_watched(launcher: tuple[str, ...], ranks: int, tmp_path: Path) -> None:
    script = write(tmp_path, TRAINING)
    options = ("--topo-measures", "scale", "--topo-prompts", "8", "--topo-steps", "0,2", "--topo-drain-seconds", "200")
    ended = run(sys.executable, "-m", *launcher, "-m", "topo_callback", "run", *options, script, "out", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    trajectory = Trajectory.load(tmp_path / "out")
    assert trajectory.steps == (0, 2)
    assert trajectory.snapshot(2).provenance["facts"]["world_size"] == ranks


@pytest.mark.slow
def test_trls_own_script_is_watched(tmp_path: Path) -> None:
    from tiny import tiny_llama, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, layers=3).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = [json.dumps({"text": f"text {i} is about {i * 7 % 5}"}) for i in range(16)]
    (tmp_path / "data/train.jsonl").write_text("\n".join(rows))
    ended = run(
        *RUN, "--topo-drain-seconds", "200", "--topo-measures", "scale", "--topo-prompts", "8", "-m", "trl.scripts.sft",
        "--model_name_or_path", "model", "--dataset_name", "data", "--output_dir", "out", "--max_steps", "2",
        "--report_to", "none", "--use_cpu", "true", "--bf16", "false", "--per_device_train_batch_size", "2",
        folder=tmp_path, HF_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert Trajectory.load(tmp_path / "out").steps[-1] == 2
