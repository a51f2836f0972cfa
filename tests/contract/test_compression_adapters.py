"""External compression tools: the contract between adapter and driver, held with fake environments.

A fake environment is a Python that finds stand-in packages of the tools' names; the driver script,
the process, the files and the time-outs are real.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lichen.compression.adapters import ADAPTERS
from lichen.compression.adapters.external_tool import FORMAT, Adapter, folder_sha256
from lichen.compression.corpus import Document
from lichen.core.errors import ConfigError, EngineError, MissingDependencyError, UnknownNameError

TEXTS = [Document(f"{i}.py", f"def f{i}(): pass\n") for i in range(5)]

FAKES = {
    "gptqmodel": """
        import json, pathlib
        class QuantizeConfig:
            def __init__(self, **settings):
                self.settings = settings
        class GPTQModel:
            @classmethod
            def load(cls, path, config):
                self = cls()
                self.seen = {"model": path, "config": config.settings}
                return self
            def quantize(self, texts, batch_size):
                self.seen |= {"texts": texts, "batch": batch_size}
            def save(self, out):
                pathlib.Path(out).mkdir()
                pathlib.Path(out, "config.json").write_text(json.dumps(self.seen))
        """,
    "llmcompressor": """
        def oneshot(model, tokenizer, dataset, recipe, max_seq_length, num_calibration_samples):
            model.seen = {"texts": dataset["text"], "recipe": recipe, "sequence": max_seq_length,
                          "samples": num_calibration_samples}
        """,
    "datasets": """
        class Dataset:
            from_dict = staticmethod(dict)
        """,
    "transformers": """
        import json, pathlib
        class Saved:
            seen = None
            @classmethod
            def from_pretrained(cls, path, **_):
                return cls()
            def save_pretrained(self, out, **_):
                pathlib.Path(out).mkdir(exist_ok=True)
                if self.seen:
                    pathlib.Path(out, "config.json").write_text(json.dumps(self.seen))
        AutoModelForCausalLM = AutoTokenizer = Saved
        """,
}


@pytest.fixture
def packages(tmp_path) -> Path:
    """A folder of stand-in packages."""
    root = tmp_path / "packages"
    root.mkdir()
    for name, source in FAKES.items():
        (root / f"{name}.py").write_text(textwrap.dedent(source))
    return root


@pytest.fixture
def model(tmp_path) -> Path:
    """A model folder."""
    root = tmp_path / "parent"
    root.mkdir()
    (root / "config.json").write_text("{}")
    return root


def environment(packages: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}


def adapter(name: str, **options: object) -> Adapter:
    return ADAPTERS.get(name)({"python": sys.executable, "samples": 3} | options)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_a_tool_makes_a_folder_that_knows_its_parent(name, tmp_path, model, packages):
    """The order reaches the tool, the result appears whole, the artifact has recipe and lineage."""
    out = tmp_path / "child"
    made = adapter(name).compress(model, out, TEXTS, environment=environment(packages))
    seen = json.loads((out / "config.json").read_text())
    assert seen["texts"] == [d.text for d in TEXTS[:3]]
    assert made.format == FORMAT
    assert made.sha256 == folder_sha256(out)
    assert made.lineage == (folder_sha256(model),)
    assert json.loads(made.recipe)["samples"] == 3
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_gptqmodel_is_given_its_settings(tmp_path, model, packages):
    """Every option arrives where the tool reads it."""
    chosen = {"bits": 3, "group_size": 32, "desc_act": True, "sym": False}
    made = adapter("gptqmodel", batch=4, **chosen)
    made.compress(model, tmp_path / "c", TEXTS, environment=environment(packages))
    seen = json.loads((tmp_path / "c" / "config.json").read_text())
    assert seen["config"] == chosen
    assert seen["batch"] == 4
    assert seen["model"] == str(model)


def test_llm_compressor_is_given_a_recipe_in_its_own_language(tmp_path, model, packages):
    """The recipe is the tool's YAML: modifier, scheme, what to leave alone."""
    made = adapter("llm_compressor", algorithm="awq", ignore=["lm_head", "re:.*gate$"])
    made.compress(model, tmp_path / "c", TEXTS, environment=environment(packages))
    recipe = json.loads((tmp_path / "c" / "config.json").read_text())["recipe"]
    assert "    AWQModifier:\n" in recipe
    assert '      ignore: ["lm_head", "re:.*gate$"]\n' in recipe
    assert recipe.endswith("      scheme: W4A16\n")


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_a_lacking_package_is_named_with_the_command_that_installs_it(name, tmp_path, model):
    """The environment exists, the tool is not in it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    isolated = {"PYTHONPATH": str(empty), "PATH": os.environ["PATH"]}
    broken = "raise ImportError('nothing here')"
    for package in FAKES:
        (empty / f"{package}.py").write_text(broken)
    with pytest.raises(MissingDependencyError, match="-m pip install"):
        adapter(name).compress(model, tmp_path / "c", TEXTS, environment=isolated)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("raise RuntimeError('CUDA out of memory: 80 GiB')", EngineError, "ran out of memory: Run"),
        ("raise ValueError('bad \\x1b[31m scheme')", EngineError, r"failed: ValueError: bad \[31m"),
        ("import os; print('going down'); os._exit(9)", EngineError, "code 9.*printed: going down"),
        ("import os, sys; os.kill(os.getpid(), 9)", EngineError, "code -9.*printed: nothing"),
        ("import sys; sys.exit(0)", EngineError, "code 0 and no answer"),
    ],
)
def test_what_goes_wrong_inside_is_one_sentence(source, error, said, tmp_path, model, packages):
    """Exceptions, memory, exits and signals are translated; nothing is left behind."""
    (packages / "gptqmodel.py").write_text(source)
    with pytest.raises(error, match=said):
        adapter("gptqmodel").compress(
            model, tmp_path / "c", TEXTS, environment=environment(packages)
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["packages", "parent"]


def test_a_tool_that_writes_nothing_has_failed(tmp_path, model, packages):
    """Success without a model is no success."""
    source = FAKES["gptqmodel"].replace(
        'pathlib.Path(out, "config.json")', 'pathlib.Path(out, "x")'
    )
    (packages / "gptqmodel.py").write_text(textwrap.dedent(source))
    with pytest.raises(EngineError, match="wrote no model"):
        adapter("gptqmodel").compress(
            model, tmp_path / "c", TEXTS, environment=environment(packages)
        )


def test_a_tool_that_hangs_is_ended_with_all_it_started(tmp_path, model, packages):
    """After the time-out neither the tool nor its children are alive."""
    marker = tmp_path / "child.pid"
    (packages / "gptqmodel.py").write_text(
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(marker)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(EngineError, match="ended after 5 s"):
        adapter("gptqmodel", timeout_s=5.0).compress(
            model, tmp_path / "c", TEXTS, environment=environment(packages)
        )
    if marker.exists():  # it may have been ended before it got that far
        assert _ended(int(marker.read_text()))


def _ended(pid: int) -> bool:
    """Whether a process is gone, or is within seconds: a killed one may need its turn to die."""
    for _ in range(200):
        if not _runs(pid):
            return True
        time.sleep(0.05)
    return False


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def test_what_cannot_work_is_refused_before_anything_starts(tmp_path, model):
    """No folder, an existing output, no texts, no interpreter."""
    tool = adapter("gptqmodel")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        tool.compress(tmp_path / "none", tmp_path / "c", TEXTS)
    with pytest.raises(ConfigError, match="exists: give a folder"):
        tool.compress(model, model, TEXTS)
    with pytest.raises(ConfigError, match="needs calibration texts"):
        tool.compress(model, tmp_path / "c", [])
    with pytest.raises(ConfigError, match="there is no Python at"):
        adapter("gptqmodel", python="/nowhere/python").compress(model, tmp_path / "c", TEXTS)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gptqmodel", {"bits": 5}, "bits must be one of 2, 3, 4, 8"),
        ("gptqmodel", {"group_size": 100}, "group_size must be one of"),
        ("gptqmodel", {"batch": 0}, "at least 1"),
        ("gptqmodel", {"bitz": 4}, "did you mean 'bits'"),
        ("llm_compressor", {"algorithm": "qat"}, "algorithm must be one of gptq, awq, round"),
        ("llm_compressor", {"scheme": "W4A16\n      x: 1"}, "scheme is the name of a preset"),
        ("llm_compressor", {"ignore": ['a"]\nx']}, "ignore holds names of layers"),
        ("llm_compressor", {"samples": 0}, "at least 1"),
    ],
)
def test_options_are_refused_in_one_sentence(name, options, said):
    """Ranges, names, and nothing that could break out of the recipe."""
    with pytest.raises(ConfigError, match=said):
        adapter(name, **options)


def test_unknown_tools_are_refused():
    """With the nearest name."""
    with pytest.raises(UnknownNameError, match="did you mean 'gptqmodel'"):
        ADAPTERS.get("gptq_model")


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "package"), [("gptqmodel", "gptqmodel"), ("llm_compressor", "llmcompressor")]
)
def test_the_real_tool_makes_a_model(name, package, tmp_path):
    """With the GPU stack at hand, a real folder comes out."""
    python = os.environ.get("LICHEN_TEST_GPU_PYTHON", sys.executable)
    parent = os.environ.get("LICHEN_TEST_MODEL_FOLDER", "")
    if python == sys.executable and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}: name its Python in LICHEN_TEST_GPU_PYTHON")
    if not parent:
        pytest.skip("needs a model folder in hub layout: name it in LICHEN_TEST_MODEL_FOLDER")
    made = ADAPTERS.get(name)({"python": python, "samples": 8}).compress(
        Path(parent), tmp_path / "child", TEXTS * 2
    )
    assert list(Path(made.path).glob("*.safetensors"))
