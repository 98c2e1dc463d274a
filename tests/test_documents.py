"""Every code block of README.md and docs is run as it is printed."""

from __future__ import annotations

import ast
import functools
import gzip
import html
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
import torch
from documents_run import code_blocks, every_block, place
from tiny import tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

import topo_callback
from topo_callback import TopologyConfig, TopologyError
from topo_callback.cli import build_parser, main
from topo_callback.settings import gather_settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
NOT_RUN = {  # every other block is run, or read by the parser that it is for
    "docs/how-to/calibrate.md": 1,
    "docs/how-to/launchers.md": 3,
}
LANGUAGES = {"python", "bash", "yaml", "text"}
pytestmark = [
    pytest.mark.skipif(not DOCUMENTS[0].is_file(), reason="the tests are not in their repository"),
    pytest.mark.timeout(900),
]
ROWS = [
    [{"role": "user", "content": f"What do {i} and {i * 7 % 23} make?"}, {"role": "assistant", "content": f"{i * 3}."}]
    for i in range(56)  # enough for eight disjoint subsets
]


def save_model(folder: Path) -> None:
    """A model as deep as Qwen2.5-0.5B, and narrow, with a tokenizer."""
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 24, "vocab_size": len(tokenizer)}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, bos_token_id=None)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_surroundings(folder: Path) -> None:
    """What the documents name, under the names they use."""
    for name in ("Qwen/Qwen2.5-0.5B", "org/base", "org/chat"):
        save_model(folder / name)
    data = folder / "trl-lib" / "Capybara"
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in ROWS))
    (folder / "runs").mkdir()
    (folder / "prompts.txt").write_text("".join(f"{messages[0]['content']}\n" for messages in ROWS))
    bars = [(1, birth, birth + 1 + birth % 20) for birth in range(1, 45)]
    published = "dimension,birth,death\n" + "".join(
        f"{dimension},{birth},{death}\n" for dimension, birth, death in bars
    )
    (folder / "llama-2-7b_pile_k5_m4.csv.gz").write_bytes(gzip.compress(published.encode()))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which all Python blocks have run, and what that printed."""
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("documents")
    make_surroundings(folder)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    environment |= {"HF_HOME": str(folder / "home")}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "documents_run.py"), *map(str, DOCUMENTS)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stdout[-1000:] + ended.stderr[-3000:]
    return folder, ended.stdout


@pytest.mark.slow
def test_the_python_blocks_run_as_printed(printed: tuple[Path, str]) -> None:
    expected = [
        f"ran {place(document)}:{line}" for document in DOCUMENTS for line, _ in code_blocks(document, "python")
    ]
    assert len(expected) >= 25
    assert [line for line in printed[1].splitlines() if line.startswith("ran ")] == expected


@pytest.mark.slow
def test_the_layers_of_the_first_block_are_those_that_the_defaults_read(printed: tuple[Path, str]) -> None:
    said = re.search(r"^trajectory\.layers  # (\(.*?\)):", DOCUMENTS[0].read_text(), re.MULTILINE)
    assert said is not None
    (run,) = (printed[0] / "runs" / "sft" / "topology").glob("*/run.json")
    assert said[1] == str(tuple(json.loads(run.read_text())["layers"]))


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of every shell block: where it stands, and its words."""
    for document in DOCUMENTS:
        for number, block in code_blocks(document, "bash"):
            for offset, line in enumerate(block.splitlines()):
                for command in re.split(r"\s*(?:&&|\|\|)\s*", line):
                    words = shlex.split(command, comments=True)
                    if words:
                        yield f"{place(document)}:{number + offset + 1}", words


def own(words: list[str]) -> list[str] | None:
    """The arguments of topo-callback, in any of the ways to call it."""
    if words[0] == "topo-callback":
        return words[1:]
    if words[0] in ("python", "accelerate", "torchrun") and "topo_callback" in words:
        at = words.index("topo_callback")
        return words[at + 1 :] if words[at - 1] == "-m" else None
    return None


def test_every_block_is_run_or_says_why_not() -> None:
    marked: dict[str, int] = {}
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = every_block(document)
        assert 2 * len(blocks) == len(re.findall("^ *```", text, re.MULTILINE)), (
            f"{place(document)}: a fence is not read"
        )
        for line, language, _, reason in blocks:
            assert language in LANGUAGES, f"{place(document)}:{line}: nothing runs {language}"
            if reason:
                marked[place(document)] = marked.get(place(document), 0) + 1
    assert marked == NOT_RUN


def test_yaml_is_of_settings(tmp_path: Path) -> None:
    blocks = [block for document in DOCUMENTS for _, block in code_blocks(document, "yaml")]
    assert blocks
    for block in blocks:
        file = tmp_path / "settings.yaml"
        file.write_text(block)
        assert gather_settings({}, environment={}, file=file) != TopologyConfig()


def heading_anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=place)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://|mailto:)([^)\s#]*)#?([^)\s]*)\)", document.read_text()):
        found = (document.parent / target).resolve() if target else document
        if place(document).startswith("docs/") and found in MADE:
            continue
        assert found.exists(), target
        assert not anchor or anchor in heading_anchors(found.read_text()), f"{target}#{anchor}"


MADE = {
    ROOT / "docs" / name
    for name in ("reference/settings.md", "reference/commands.md", "reference/python.md", "changelog.md")
}


def test_every_promise_names_tests_that_are_there() -> None:
    rows = re.findall(
        r"^\| (?!promise |---)(.+) \| (.+) \|$", (ROOT / "docs" / "promises.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 40
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for promise, held in rows:
        faults = re.findall(r"`(test_fault_\d+_)\*`", held)
        assert faults or re.search(r"\]\(\.\./tests/", held), f"nothing holds: {promise}"
        assert all(f"def {fault}" in written for fault in faults), promise


def test_every_requirement_and_extra_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    _, required, extras, *_ = page.split("\n## ")
    told = [
        set(re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (`[^|]*)", part, re.M)))) for part in (required, extras)
    ]
    assert told[0] == {re.split(r"[^\w-]", each)[0] for each in project["dependencies"]}
    assert told[1] == set(project["optional-dependencies"])


def public_list() -> ModuleType:
    """docs/public.py, the one list of what is public."""
    spec = importlib.util.spec_from_file_location("public", ROOT / "docs" / "public.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HELPING = ("topo_callback.demo", "topo_callback.libraries")  # of the demo and the examples
KEYS = {"topo_callback.step", "topo_callback.events"}  # of OpenTelemetry


def test_documents_and_examples_import_what_is_public() -> None:
    listed = public_list()
    public = {(module, name) for module in listed.PUBLIC for name in listed.public_names(module)}
    assert ("topo_callback.homology", "rips_persistence") in public
    sources = {
        f"{place(document)}:{line}": block
        for document in DOCUMENTS
        for line, language, block, _ in every_block(document)
        if language == "python"
    }
    sources |= {path.name: path.read_text() for path in (ROOT / "examples").glob("*.py")}
    imported = {
        (node.module or "", alias.name, where)
        for where, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("topo_callback")
        for alias in node.names
    }
    demo = {each for each in imported if each[0].startswith(HELPING) and "/" not in each[2]}
    assert {each for each in imported - demo if each[:2] not in public} == set()


def test_documents_name_what_is_public() -> None:
    listed = public_list()
    names = {f"{module}.{name}" for module in listed.PUBLIC for name in listed.public_names(module)}
    known = {*listed.PUBLIC, *names, *HELPING, *KEYS}
    written = [
        (name, place(document))
        for document in (*DOCUMENTS, *sorted((ROOT / "docs" / "reference").glob("*.txt")))
        for name in re.findall(r"`(topo_callback\.[\w.]*\w)", document.read_text())
    ]
    assert len(written) >= 10
    assert {each for each in written if each[0] not in known} == set()


def shown_members(holder: type) -> set[str]:
    """The documented methods and properties of a class, also those of its bases in the package."""
    kinds = (FunctionType, classmethod, staticmethod, property, functools.cached_property)
    return {
        name
        for base in holder.__mro__
        if base.__module__.startswith("topo_callback")
        for name, value in vars(base).items()
        if isinstance(value, kinds) and value.__doc__ and not name.startswith("_")
    }


@pytest.mark.slow
def test_the_page_of_the_python_api_has_every_public_member_and_no_internal_one(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(build, cwd=ROOT, env=environment, check=True, timeout=300)
    page = (tmp_path / "reference" / "python.html").read_text()
    anchors = set(re.findall(r'<h\d id="(topo_callback\.[\w.]+)"', page))
    words = " ".join(re.findall(r"\w+", html.unescape(re.sub("<[^>]+>", "", page))))

    listed = public_list()
    for name, text in listed.TEXT.items():
        anchors = {each.replace(text, name) for each in anchors}
    expected, holders = set(), set()
    for module in listed.PUBLIC:
        try:
            loaded = importlib.import_module(module)
        except TopologyError:  # a framework that is not installed
            continue
        for name in listed.public_names(module):
            value = getattr(loaded, name)
            if module != "topo_callback" and value is getattr(topo_callback, name, None):
                continue  # described above
            expected.add(f"{module}.{name}")
            if isinstance(value, (type, FunctionType)):
                said = (value.__doc__ or "").partition("\n")[0]
                assert " ".join(re.findall(r"\w+", said)) in words, f"{name} without its text"
            if isinstance(value, type):
                internal = set(listed.INTERNAL.get(f"{module}.{name}", ()))
                assert internal <= {*dir(value)}, f"{name}: {internal}"
                expected |= {f"{module}.{name}.{member}" for member in shown_members(value) - internal}
                holders.add(f"{module}.{name}")
    assert "topo_callback.Trajectory.frame" in expected
    assert expected - anchors == set()
    assert {each for each in anchors - expected if each.rpartition(".")[0] in holders} == set()
    assert "_knob(" not in page


def test_the_site_leads_to_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    named = {path: str(path.relative_to(ROOT)).removeprefix("docs/") for path in pages}
    assert {
        name for name in named.values() if not re.search(rf"[ ]{re.escape(name)}$", navigation, re.MULTILINE)
    } == set()


def test_the_project_page_on_an_index_has_no_picture_and_no_link_into_the_repository() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    page = (ROOT / "README.md").read_text()
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(each["pattern"], each["replacement"], page)
    assert "![" not in page
    assert re.findall(r"\]\((?!https?://)", page) == []
    assert not re.search(r"^\*[^*]+\*$", page, re.MULTILINE), "the caption of a picture that is not there"
    assert "## Try it" in page


def test_the_citation_has_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_architecture_has_every_part() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    parts = [path for path in (ROOT / "topo_callback").iterdir() if not path.name.startswith((".", "_"))]
    names = {f"{path.name}/" if path.is_dir() else path.name for path in parts if path.name != "py.typed"}
    assert {name for name in names if f"`{name}`" not in page} == set()
    listed = re.findall(r"`(\w+(?:/|\.py))`", re.sub(r"[^|\n]+\|$", "", page, flags=re.MULTILINE))
    assert set(listed) - names == set()


@pytest.mark.parametrize(("where", "words"), [pytest.param(*each, id=each[0] + each[1][0]) for each in shell_lines()])
def test_shell_commands_are_ones_that_the_parsers_take(where: str, words: list[str]) -> None:
    arguments = own(words)
    if arguments is not None:
        build_parser().parse_args(arguments)
        return
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = [name for word in words for name in re.findall(r"^\.\[(.*)\]$", word)]
        assert set(wanted) <= set(extras)
        assert all((ROOT / words[i + 1]).is_file() for i, word in enumerate(words) if word == "-c")
        return
    assert words[0] in ("python3", ".", "pytest"), f"{where}: nothing tries `{shlex.join(words)}`"


RUNNABLE = {"report", "controls", "scan", "finish", "events"}


@pytest.mark.slow
def test_the_shell_commands_on_runs_do_what_they_say(
    printed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = printed
    monkeypatch.chdir(folder)
    tried = 0
    for where, words in shell_lines():
        arguments = own(words)
        # what follows a training ends with that, and a URL needs a server: test_following and test_storage have both
        elsewhere = any("://" in each or each == "--watch" for each in arguments or ())
        if arguments and arguments[0] in RUNNABLE and not elsewhere:
            assert main(arguments) == 0, f"{where}: {shlex.join(words)}: {capsys.readouterr().err}"
            tried += 1
    assert tried >= 12
    assert list(folder.rglob("*.html"))
