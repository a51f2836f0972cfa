"""The worked examples are programs: each is parsed, and run where its language is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lichen.acceleration import worked_examples
from lichen.acceleration.completeness import CompleteCode, Wanted
from lichen.acceleration.completeness.brace_grammar import GRAMMARS
from lichen.acceleration.worked_examples import shown
from lichen.core.generation import Role

LANGUAGES = sorted(worked_examples._SOLVED)

MAINS = {
    "javascript": (
        "a.js",
        (
            "{}\nconsole.log(secondLargest([3, 1, 3, 2]), secondLargest([10, 9, 1]),"
            " secondLargest([1, 1]));"
        ),
        ["node", "a.js"],
        "2 9 null",
    ),
    "c": (
        "a.c",
        (
            "#include <stdbool.h>\n#include <stddef.h>\n#include <stdio.h>\n{}\nint main(void) {{"
            " int n = 0, m = 0, k = 7; bool a = second_largest((int[]){{3, 1, 3, 2}}, 4, &n);"
            " bool b = second_largest((int[]){{1, 9, 10}}, 3, &m);"
            " bool c = second_largest((int[]){{1, 1}}, 2, &k) || second_largest(NULL, 0, &k);"
            ' printf("%d %d %d %d %d %d", a, n, b, m, c, k); }}'
        ),
        ["gcc", "-Wall", "-Werror", "a.c", "-o", "a"],
        "1 2 1 9 0 7",
    ),
    "cpp": (
        "a.cpp",
        (
            "#include <iostream>\n#include <iterator>\n#include <optional>\n#include <set>\n"
            "#include <vector>\n{}\nint main() {{ std::cout << *second_largest({{3, 1, 3, 2}})"
            ' << " " << second_largest({{1, 1}}).has_value(); }}'
        ),
        ["g++", "-std=c++17", "-Wall", "-Werror", "a.cpp", "-o", "a"],
        "2 0",
    ),
    "rust": (
        "a.rs",
        (
            '{}\nfn main() {{ print!("{{:?}} {{:?}}", second_largest(&[3, 1, 3, 2]),'
            " second_largest(&[1, 1])); }}"
        ),
        ["rustc", "a.rs", "-o", "a"],
        "Some(2) None",
    ),
    "java": (
        "A.java",
        (
            "import java.util.*;\nclass A {{\n{}\npublic static void main(String[] a) {{"
            ' System.out.print(secondLargest(List.of(3, 1, 3, 2)) + " " + secondLargest(List.of(1, 1)));'
            " }} }}"
        ),
        ["java", "A.java"],
        "2 null",
    ),
}
"""File, program around the example, command that builds or runs it, what it prints."""


def answer(language: str) -> str:
    """The example's code."""
    (text,) = [m.content for m in shown(language) if m.role is Role.ASSISTANT]
    found = re.fullmatch(rf"```{language}\n(.*)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_there_is_one_for_every_language_whose_code_is_followed() -> None:
    """And aliases find it."""
    assert set(LANGUAGES) == {"python", *GRAMMARS}
    assert "C++" in shown("c++")[0].content
    assert shown("Golang")[1].content.startswith("```golang\n//")


@pytest.mark.parametrize("language", sorted(GRAMMARS))
def test_it_is_one_whole_function(language: str) -> None:
    """It parses without an error, and the completeness rule lets all of it through."""
    package, function = GRAMMARS[language]
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip(package)
    code = answer(language)
    parsed = code if language != "java" else f"class A {{\n{code}}}\n"
    parser = tree_sitter.Parser(tree_sitter.Language(getattr(grammar, function)()))
    assert not parser.parse(parsed.encode()).root_node.has_error
    name = re.search(r"(?i)second_?largest(?=\()", code.partition("\n")[2].partition("\n")[2])
    assert name is not None
    wanted = Wanted(language=language, entry_point=name[0], given="", prefix="")
    text = f"```{language}\n{code}```\nMore words, and then:\n```{language}\nf();\n```\n"
    kept = CompleteCode(wanted).cut(text)
    assert kept is not None
    assert text[:kept].rstrip("`\n").endswith(code.rstrip("\n"))


@pytest.mark.parametrize("language", sorted(MAINS))
def test_it_gives_what_it_says(language: str, tmp_path: Path) -> None:
    """Built and run with the tools of its language."""
    file, program, command, prints = MAINS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / file).write_text(program.format(answer(language)), encoding="utf-8")
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    if (tmp_path / "a").exists():
        done = subprocess.run(
            [str(tmp_path / "a")], capture_output=True, text=True, check=True, timeout=60
        )
    assert done.stdout.strip() == prints
