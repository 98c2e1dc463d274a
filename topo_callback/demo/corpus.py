"""The English text that every Python carries: reference text to pretrain on, questions and answers to fine-tune on.

Everything is read from the sources of the standard library with `ast`; no module is imported, so nothing runs. The
result depends on the Python version alone. The two kinds of text do not overlap: reference text is the language
reference (pydoc topics) and the docstrings of modules and classes; questions and answers come from functions.
"""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from topo_callback.errors import ConfigurationError

# Packages with plenty of prose. Named, not discovered: what is installed beside them must not change the corpus.
PACKAGES = (
    "asyncio",
    "collections",
    "concurrent",
    "ctypes",
    "curses",
    "dbm",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "re",
    "sqlite3",
    "string",
    "sysconfig",
    "tkinter",
    "tomllib",
    "unittest",
    "urllib",
    "wsgiref",
    "xml",
    "xmlrpc",
    "zipfile",
    "zoneinfo",
)
SMALLEST_CORPUS = 100_000  # characters; with less, a tokenizer and a model learn nothing worth looking at
LONGEST_ANSWER = 240  # characters
HELD_OUT_SHARE = 12  # one answer in so many is held out


@dataclass(frozen=True)
class Documented:
    """A module, class or function with its docstring; `signature` is empty unless it is a function."""

    kind: str
    module: str
    name: str
    signature: str
    arguments: tuple[str, ...]
    docstring: str


@dataclass(frozen=True)
class Corpus:
    """Text for pretraining, and prompt/completion rows for fine-tuning and for its evaluation."""

    reference: list[str]
    training_rows: list[dict[str, str]]
    held_out_rows: list[dict[str, str]]


@cache
def gather_corpus(library: Path | None = None) -> Corpus:
    """The whole corpus, in an order that depends on nothing but the sources; it is read once in a process.

    Args:
        library: folder of the standard library's sources; None: that of the running Python.

    Raises:
        ConfigurationError: this Python comes without readable sources.
    """
    if library is None:
        library = Path(sysconfig.get_path("stdlib"))
    documented = list(read_documentation(library))
    reference = read_topics(library) + [
        f"{item.name or item.module}\n\n{item.docstring}" for item in documented if item.kind != "function"
    ]
    training_rows, held_out_rows = split_rows(question_rows(documented))
    characters = sum(len(text) for text in reference)
    if characters < SMALLEST_CORPUS or not held_out_rows:
        raise ConfigurationError(
            f"this Python carries only {characters} characters of documentation in {library} (at least "
            f"{SMALLEST_CORPUS} are needed); install it with its standard library's sources, or name a model and a "
            "data set with --model and --dataset"
        )
    return Corpus(reference, training_rows, held_out_rows)


def read_topics(library: Path) -> list[str]:
    """The pydoc topics (the language reference as plain text), sorted by name; empty when they are not there."""
    tree = _parse(library / "pydoc_data" / "topics.py")
    for statement in tree.body if tree else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics = ast.literal_eval(statement.value)
            return [str(topics[name]).strip() for name in sorted(topics)]
    return []


def read_documentation(library: Path) -> Iterator[Documented]:
    """Every documented module, class and function of the library's pure Python modules, in the order of the files."""
    files = list(library.glob("*.py"))
    for package in PACKAGES:
        files += (library / package).rglob("*.py")
    for file in sorted(files, key=lambda file: file.relative_to(library).as_posix()):
        tree = _parse(file)
        if tree is None or "test" in file.relative_to(library).parts:
            continue
        module = ".".join(file.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        docstring = ast.get_docstring(tree)
        if docstring:
            yield Documented("module", module, "", "", (), docstring)
        yield from _members(tree, module, prefix="")


def _parse(file: Path) -> ast.Module | None:
    """The syntax tree of a file, or None when it is missing, unreadable, or written for another Python."""
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _members(node: ast.AST, module: str, prefix: str) -> Iterator[Documented]:
    """Documented classes and functions below `node`, not those inside functions: nobody can call them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            docstring = ast.get_docstring(child)
            if docstring:
                yield Documented("class", module, prefix + child.name, "", (), docstring)
            yield from _members(child, module, prefix=f"{prefix}{child.name}.")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(child)
            if docstring:
                arguments, signature = _signature(child)
                yield Documented("function", module, prefix + child.name, signature, arguments, docstring)
        elif isinstance(child, (ast.If, ast.Try, ast.ExceptHandler)):  # definitions that depend on the platform
            yield from _members(child, module, prefix)


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[tuple[str, ...], str]:
    """Names of the arguments, and the call as it is written, both without `self`."""
    given = function.args
    arguments = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    written = ast.unparse(given)
    if arguments[:1] in (["self"], ["cls"]):
        written = re.sub(r"^(self|cls)(, /)?(, )?", "", written)
        arguments = arguments[1:]
    return tuple(arguments), f"{function.name}({written})"


def question_rows(documented: list[Documented]) -> list[dict[str, str]]:
    """One prompt/completion row for every public function with a usable docstring; the form is drawn by its name."""
    rows = []
    for item in documented:
        private = any(part.startswith("_") for part in (*item.module.split("."), *item.name.split(".")))
        answer = first_paragraph(item.docstring)
        if item.kind == "function" and not private and len(answer) >= 20 and len(item.signature) <= 120:
            rows.append(_row(item, answer))
    return rows


def first_paragraph(docstring: str) -> str:
    """The first paragraph of a docstring as one line, cut after the last sentence that fits."""
    text = " ".join(re.split(r"\n\s*\n|\n?\s*>>>", inspect.cleandoc(docstring), maxsplit=1)[0].split())
    if len(text) > LONGEST_ANSWER:
        end = text.rfind(". ", 0, LONGEST_ANSWER)
        text = text[: end + 1] if end >= 0 else text[:LONGEST_ANSWER].rsplit(" ", 1)[0] + " ..."
    return text


def _row(item: Documented, answer: str) -> dict[str, str]:
    name = f"{item.module}.{item.name}"
    sentence = answer.split(". ")[0].rstrip(".") + "."
    listed = ", ".join(item.arguments)
    forms = (
        (f"What does {name} do?", answer),
        (f"Explain {item.signature} from the module {item.module}.", answer),
        (f"How is {name} called?", f"Write {item.signature}. {sentence}"),
        (f"Which arguments does {name} take?", f"It takes {listed}." if listed else "It takes no arguments."),
        (f"Which function of {item.module} fits this description? {sentence}", f"It is {item.signature}."),
        (f"Describe {name} in one sentence.", sentence),
    )
    question, completion = forms[_hash(name) % len(forms)]
    # The space opens the completion, so that a byte-level tokenizer never merges across the boundary.
    return {"prompt": f"Question: {question}\nAnswer:", "completion": f" {completion}"}


def split_rows(rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and held-out rows. Drawn by the answer, so that no held-out answer is also trained on."""
    training: list[dict[str, str]] = []
    held_out: list[dict[str, str]] = []
    for row in rows:
        (training if _hash(row["completion"]) % HELD_OUT_SHARE else held_out).append(row)
    return training, held_out


def preference_rows(rows: list[dict[str, str]], *, seed: int = 0) -> list[dict[str, str]]:
    """Rows of prompt, chosen and rejected for DPO: the right answer against the answer to another question."""
    random = Random(seed)
    answers = [row["completion"] for row in rows]
    preferences = []
    for row in rows:
        rejected = random.choice(answers)
        if rejected != row["completion"]:
            preferences.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected})
    return preferences


def _hash(text: str) -> int:
    """The same number in every process, unlike `hash`."""
    return zlib.crc32(text.encode())
