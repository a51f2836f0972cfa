"""Specs: files, flags and --set become one frozen, hashed value, or one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.acceleration import STRATEGIES
from lichen.acceleration.strategy import StrategyContext, check_order
from lichen.compose import settings
from lichen.compose.presets import PRESETS, document
from lichen.compose.spec import RunSpec, SolutionSpec, load, spec_hash
from lichen.core.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_model_name_is_a_whole_spec() -> None:
    """``--model NAME`` alone gives a solution with defaults, named after the model."""
    spec = load([], models=["qwen2.5-coder-0.5b"])
    assert spec.solutions[0].name == "qwen2.5-coder-0.5b"
    assert spec.solutions[0].engine.name == "llama_cpp"
    assert spec.task.name == "humaneval"


def test_a_preset_stands_beside_the_plain_model() -> None:
    """One model gives plain and green; several say whose; both are validated like files."""
    spec = load([], models=["qwen2.5-coder-0.5b"], presets=["green"])
    assert [s.name for s in spec.solutions] == ["plain", "green"]
    assert {s.model for s in spec.solutions} == {"qwen2.5-coder-0.5b"}
    plain, green = spec.solutions
    assert plain.strategies == ()
    assert plain.engine.options == {}
    assert plain.generation == green.generation
    assert "stop_when_complete" in [s.name for s in green.strategies]
    both = load([], models=["/x/a.gguf", "b"], presets=["green"])
    assert [s.name for s in both.solutions] == ["a plain", "a green", "b plain", "b green"]


def test_a_recipe_stands_beside_a_model_and_beside_its_green_form(tmp_path: Path) -> None:
    """Alone it is plain with another file; with --green it is green with another file."""
    spec = load([], models=["m"], recipes=["small"])
    assert [(s.name, s.recipe) for s in spec.solutions] == [("plain", ""), ("small", "small")]
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[[step]]\nmethod = "retie"\n', encoding="utf-8")
    sets = ["solutions.green.strategies=[]", "engine.slots=2"]
    spec = load([], models=["m"], presets=["green"], recipes=["small", str(file)], sets=sets)
    assert [s.name for s in spec.solutions] == ["plain", "green", "green, small", "green, mine"]
    _, green, small, mine = spec.solutions
    assert green.strategies == ()
    assert small.strategies == mine.strategies == (load_green().strategies)
    assert mine.recipe == file.read_text(encoding="utf-8")
    assert {s.engine.options["slots"] for s in spec.solutions} == {2}
    names = [s.name for s in load([], models=["a", "b"], recipes=["small"]).solutions]
    assert names == ["a plain", "a small", "b plain", "b small"]
    with pytest.raises(ConfigError, match="makes a model smaller: say which"):
        load([], recipes=["small"])


def load_green() -> SolutionSpec:
    return load([], models=["m"], presets=["green"]).solutions[1]


@pytest.mark.parametrize("name", PRESETS)
def test_every_shipped_preset_can_be_made(name: str) -> None:
    """Each file is a solution without a model whose strategies exist and stand in a fit order."""
    assert "model" not in document(name)
    (_, chosen) = load([], models=["m"], presets=[name]).solutions
    context = StrategyContext()
    made = [STRATEGIES.get(s.name)(s.options, context) for s in chosen.strategies]
    check_order(made)


def test_a_preset_needs_a_model_and_a_name_that_exists(tmp_path: Path) -> None:
    """Without --model, or with an unknown name, one sentence says what to do."""
    plain = write(tmp_path / "plain.toml", 'model = "m"\n')
    with pytest.raises(ConfigError, match="--model NAME"):
        load([plain], presets=["green"])
    with pytest.raises(ConfigError, match="did you mean 'green'"):
        load([], models=["m"], presets=["greem"])


def test_sets_reach_a_preset_by_its_name() -> None:
    """--set solutions.green.KEY changes the preset's side alone."""
    sets = ["solutions.green.generation.max_tokens=9"]
    spec = load([], models=["m"], presets=["green"], sets=sets)
    assert [s.generation.max_tokens for s in spec.solutions] == [512, 9]


def test_names_become_different() -> None:
    """The same model twice gives two names; a path is shortened to its file name."""
    spec = load([], models=["/a/b/m.gguf", "/c/m.gguf"])
    assert [s.name for s in spec.solutions] == ["m", "m-2"]


def test_solution_files_are_named_after_the_file(tmp_path: Path) -> None:
    """A solution file without a name takes its stem; engine options pass through."""
    plain = write(tmp_path / "plain.toml", 'model = "m"\n[engine]\nslots = 4\n')
    spec = load([plain])
    assert spec.solutions[0].name == "plain"
    assert spec.solutions[0].engine.options == {"slots": 4}


def test_a_run_file_is_everything(tmp_path: Path) -> None:
    """A file with [[solutions]] is a whole run, and must be the only file."""
    run = write(
        tmp_path / "run.toml",
        'samples = 3\n[task]\nname = "mbpp"\n[[solutions]]\nname = "a"\nmodel = "m"\n',
    )
    assert load([run]).samples == 3
    with pytest.raises(ConfigError, match="give it alone"):
        load([run, run])


def test_sets_win_over_flags_over_files(tmp_path: Path) -> None:
    """Precedence is --set, then flags, then the file."""
    plain = write(tmp_path / "p.toml", 'model = "m"\n[engine]\nslots = 1\n')
    spec = load([plain], flags={"engine.slots": 2, "samples": None}, sets=["engine.slots=3"])
    assert spec.solutions[0].engine.options == {"slots": 3}


def test_sets_reach_one_solution_by_name_or_index_and_all_by_engine() -> None:
    """``solutions.NAME.key`` and ``solutions.0.key`` reach one solution, ``generation.`` all."""
    spec = load(
        [],
        models=["a", "b"],
        sets=["generation.max_tokens=9", "solutions.1.generation.max_tokens=7"],
    )
    assert [s.generation.max_tokens for s in spec.solutions] == [9, 7]


def test_values_are_toml_or_text() -> None:
    """A value parses as TOML where it can, else it is a string."""
    spec = load([], models=["m"], sets=["engine.a=true", "engine.b=q8_0", "engine.c=[1, 2]"])
    assert spec.solutions[0].engine.options == {"a": True, "b": "q8_0", "c": [1, 2]}


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["samples"], "path=value"),
        (["samplez=2"], "unknown key 'samplez'"),
        (["samples=0"], "'samples' is not usable"),
        (["task.half=left"], "'task.half' is not usable"),
        (["solutions.nope.model=x"], "no solution is called 'nope'"),
        (["samples.x.y=1"], "'samples' is not usable"),
        (["generation.max_tokens=1e9"], "max_tokens"),
        (["solutions.0=1"], "say which key"),
    ],
)
def test_unusable_settings_are_one_sentence(sets: list[str], sentence: str) -> None:
    """Each wrong --set says what is wrong and where."""
    with pytest.raises(ConfigError, match=sentence) as caught:
        load([], models=["m"], sets=sets)
    assert "\n" not in str(caught.value)


def test_nothing_to_run_says_what_to_give() -> None:
    """Without file or model the sentence names both ways."""
    with pytest.raises(ConfigError, match="solution file or --model"):
        load([])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """A missing file, and one that is not TOML, are named with the reason."""
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load([tmp_path / "gone.toml"])
    with pytest.raises(ConfigError, match="not TOML"):
        load([write(tmp_path / "x.toml", "= broken")])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        load([tmp_path / "binary.toml"])


def test_the_hash_depends_on_spec_and_identities_only() -> None:
    """Equal specs hash equally; another setting or another model file changes the hash."""
    a, b = load([], models=["m"]), load([], models=["m"])
    c = load([], models=["m"], sets=["seed=1"])
    assert spec_hash(a, {"model": "x"}) == spec_hash(b, {"model": "x"})
    assert len({spec_hash(a, {"model": "x"}), spec_hash(c, {"model": "x"}), spec_hash(a, {})}) == 3
    assert RunSpec.model_validate_json(a.canonical()) == a


def test_settings_come_from_the_environment() -> None:
    """Each variable is read, defaults exist, and an unclear switch is refused."""
    env = {
        "LICHEN_CACHE": "/c",
        "LICHEN_MIRROR": "/a:/b",
        "LICHEN_OFFLINE": "yes",
        "LICHEN_STORE": "sqlite:///x",
        "LICHEN_REGION": "DNK",
    }
    assert settings.cache_dir(env) == Path("/c")
    assert settings.mirror_dirs(env) == (Path("/a"), Path("/b"))
    assert settings.offline(env)
    assert settings.store_url(env) == "sqlite:///x"
    assert settings.region(env) == "DNK"
    assert settings.mirror_dirs({}) == ()
    assert not settings.offline({})
    assert settings.region({}) == "WORLD"
    assert settings.store_url({}).startswith("sqlite:///")
    assert settings.cache_dir({}).name == "lichen"
    with pytest.raises(ConfigError, match="LICHEN_OFFLINE"):
        settings.offline({"LICHEN_OFFLINE": "maybe"})
