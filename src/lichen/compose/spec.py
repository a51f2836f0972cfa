"""What a user may configure: solution files, run files and ``--set path=value``.

A *solution file* describes one solution::

    name = "plain"
    model = "qwen2.5-coder-0.5b"
    [engine]
    name = "llama_cpp"
    slots = 4
    [generation]
    max_tokens = 512
    [[strategies]]
    name = "answer_prefix"

A *run file* has ``[task]`` and one or more ``[[solutions]]``, and replaces the command line. Either
way the result is one frozen ``RunSpec``; its canonical JSON and the hash of that go into the
record. Unknown keys are errors. Precedence: ``--set`` > named flags > file > environment > default.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lichen.compose import presets as shipped
from lichen.compression.recipe import recipe_held
from lichen.core.errors import ConfigError

Scalar = str | int | float | bool


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineSpec(BaseModel):
    """Which adapter runs the model, and its options; the adapter itself checks those."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "llama_cpp"

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class GenerationSpec(_Spec):
    """Sampling settings; see ``core.generation.Request``."""

    max_tokens: int = Field(default=512, ge=1, le=1_000_000)
    temperature: float = Field(default=0.0, ge=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    logprobs: int = Field(default=0, ge=0, le=20)


class StrategySpec(BaseModel):
    """One strategy around the engine, and its options; the strategy itself checks those."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class SolutionSpec(_Spec):
    """One solution: what is compared. Strategies are listed from the engine outwards.

    ``recipe`` makes the model smaller first: the name of a shipped recipe, or a recipe's TOML. In a
    file it may be a path that ends in ``.toml``, relative to that file.
    """

    name: str = Field(default="", max_length=100)
    model: str | None = None
    recipe: str = ""
    engine: EngineSpec = EngineSpec()
    generation: GenerationSpec = GenerationSpec()
    strategies: tuple[StrategySpec, ...] = ()

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("a name must be printable text")
        return value


class TaskSpec(_Spec):
    """Which task, worded how, on which problems.

    ``rewrite`` asks the same in other words; see ``lichen.benchmark.rewriting``.
    """

    name: str = "humaneval"
    style: str = ""
    data: str | None = None
    limit: int | None = Field(default=None, ge=1)
    half: Literal["all", "even", "odd"] = "all"
    problems: tuple[str, ...] = ()
    options: dict[str, str] = Field(default_factory=dict)
    rewrite: str = ""
    rewrite_seed: int = Field(default=0, ge=0, lt=2**31)


class SandboxSpec(_Spec):
    """How candidates are contained."""

    workers: int | None = Field(default=None, ge=1, le=256)
    unsafe: bool = False


class RunSpec(_Spec):
    """A whole run. Runs with one ``part_of`` belong together and are listed as one (a search)."""

    task: TaskSpec = TaskSpec()
    solutions: tuple[SolutionSpec, ...] = Field(min_length=1)
    samples: int = Field(default=1, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    block_size: int | None = Field(default=None, ge=1, le=10_000)
    idle_s: float = Field(default=5.0, ge=0, le=600)
    margin: float = Field(default=0.02, ge=0, le=1)
    sandbox: SandboxSpec = SandboxSpec()
    part_of: str = Field(default="", max_length=100)

    def canonical(self) -> str:
        """Return the spec as JSON with sorted keys: the text that is stored and hashed."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)


def spec_hash(spec: RunSpec, identities: Mapping[str, str]) -> str:
    """Hash a spec with what it resolved to (model and data hashes, versions), as hex SHA-256.

    Two runs with one hash would give the same records; only such a run may be resumed.
    """
    text = spec.canonical() + json.dumps(dict(identities), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def load(
    files: Sequence[Path],
    *,
    models: Sequence[str] = (),
    presets: Sequence[str] = (),
    recipes: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    sets: Sequence[str] = (),
) -> RunSpec:
    """Merge solution or run files, ``--model`` names, flags and ``--set`` texts into one spec.

    Args:
        files: TOML files; a run file must be the only one.
        models: each adds a solution of that model with default settings.
        presets: shipped settings; each adds a further solution beside every model's plain one.
        recipes: names or files of compression recipes; each adds, beside every model, the same one
            made smaller, with the settings of the last preset if there are any.
        flags: dotted path -> value; None values are skipped.
        sets: ``path=value`` texts; a value is TOML if it parses as such, else a string. A path
            that begins with ``engine.`` or ``generation.`` applies to every solution.

    Raises:
        ConfigError: unreadable file, unknown key, value out of range; says which and where.
    """
    document = _documents([(f, _with_recipes(_read(f), f.parent)) for f in files])
    document.setdefault("solutions", []).extend(_of_models(models, presets, recipes))
    for path, value in (flags or {}).items():
        if value is not None:
            _assign(document, path, value)
    for text in sets:
        path, eq, value = text.partition("=")
        if not eq:
            raise ConfigError(f"--set takes path=value, not {text!r}")
        _assign(document, path.strip(), _value(value.strip()))
    _name_solutions(document["solutions"])
    try:
        return RunSpec.model_validate(document)
    except ValidationError as exc:
        raise ConfigError(_sentence(exc)) from exc


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc


def _with_recipes(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the document with the text of each recipe file that a solution or level names."""
    return {key: _with_recipe(key, value, folder) for key, value in document.items()}


def _with_recipe(key: str, value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return _with_recipes(value, folder)
    if isinstance(value, list):
        return [_with_recipe("", entry, folder) for entry in value]
    if key == "recipe" and isinstance(value, str):
        return recipe_held(value, folder)
    return value


def _documents(parts: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    runs = [path for path, d in parts if "solutions" in d]
    if runs and len(parts) > 1:
        raise ConfigError(f"{runs[0]} is a whole run: give it alone, or give solution files only")
    if runs:
        return parts[0][1]
    for path, d in parts:
        d.setdefault("name", path.stem)
    return {"solutions": [d for _, d in parts]}


def _of_models(
    models: Sequence[str], presets: Sequence[str], recipes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    if presets and not models:
        raise ConfigError(
            f"the preset {presets[0]!r} is settings for a model: say which, with --model NAME"
        )
    if recipes and not models:
        raise ConfigError(
            f"the recipe {recipes[0]!r} makes a model smaller: say which, with --model NAME"
        )
    for model in models:
        if not presets and not recipes:
            yield {"model": model}
            continue
        whose = f"{_short(model)} " if len(models) > 1 else ""
        best: dict[str, Any] = {"name": f"{whose}{shipped.PLAIN}", "model": model}
        yield best
        for preset in presets:
            best = {**shipped.document(preset), "name": f"{whose}{preset}", "model": model}
            yield best
        for recipe in recipes:
            made = f"{best['name']}, {_stem(recipe)}" if presets else f"{whose}{_stem(recipe)}"
            yield {**deepcopy(best), "name": made, "recipe": recipe_held(recipe)}


def _stem(recipe: str) -> str:
    return Path(recipe).stem if recipe.endswith(".toml") else recipe


def _assign(document: dict[str, Any], path: str, value: object) -> None:
    head, *rest = path.split(".")
    if head in {"engine", "generation", "model"}:
        for solution in document.get("solutions", []):
            _put(solution, [head, *rest], value, path)
        return
    if head == "solutions" and rest:
        key, *inner = rest
        for index, solution in enumerate(document.get("solutions", [])):
            if key in {str(index), solution.get("name")}:
                _put(solution, inner, value, path)
                return
        raise ConfigError(f"--set {path}: no solution is called {key!r}")
    _put(document, [head, *rest], value, path)


def _put(target: dict[str, Any], keys: Sequence[str], value: object, path: str) -> None:
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {path}: {key!r} holds a value, not a table")
    if not keys:
        raise ConfigError(f"--set {path}: say which key of it")
    target[keys[-1]] = value


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _name_solutions(solutions: list[dict[str, Any]]) -> None:
    taken: set[str] = set()
    for solution in solutions:
        engine = solution.get("engine")
        fallback = engine.get("name") if isinstance(engine, dict) else None
        base = solution.get("name") or _short(solution.get("model")) or fallback or "solution"
        name, n = str(base), 2
        while name in taken:
            name, n = f"{base}-{n}", n + 1
        taken.add(name)
        solution["name"] = name


def _short(model: object) -> str:
    return re.split(r"[/\\]", str(model))[-1].removesuffix(".gguf")[:100] if model else ""


def _sentence(exc: ValidationError) -> str:
    first = exc.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"the spec has an unknown key {where!r}; see docs/reference/spec.md"
    if where == "solutions" and first["type"] == "too_short":
        return "nothing to run: give a solution file or --model NAME (see  lichen models list)"
    return f"the spec's {where!r} is not usable: {first['msg']}"
