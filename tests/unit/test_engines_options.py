"""Options of adapters: what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from lichen.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from lichen.core.model import ModelArtifact
from lichen.engines import llama_cpp, openai_http, transformers
from lichen.engines.llama_cpp.options import LlamaCppOptions, Lora, parameters
from lichen.engines.openai_http.options import OpenAIHttpOptions
from lichen.engines.options import read_options

MODEL = ModelArtifact(name="m", path="absent.gguf", format="gguf", sha256="", size_bytes=0)


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A table in a list."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One option of each kind."""

    needed: str
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    names: tuple[str, ...] = ()
    inner: tuple[Inner, ...] = ()
    table: Mapping[str, object] = field(default_factory=dict)
    maybe: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            msg = "count must be at least 1"
            raise ValueError(msg)


def read(**options: object) -> Sample:
    """Read a Sample with its needed option given."""
    return read_options(Sample, {"needed": "x", **options}, who="engine e")


def test_values_arrive_with_their_types() -> None:
    """Lists become tuples, tables become dataclasses, whole numbers may stand for numbers."""
    got = read(ratio=1, names=["a"], inner=[{"path": "p", "scale": 2}], table={"k": 1}, maybe=None)
    assert got.ratio == 1.0
    assert isinstance(got.ratio, float)
    assert got.names == ("a",)
    assert got.inner == (Inner(path="p", scale=2.0),)
    assert got.table == {"k": 1}
    assert got.maybe is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"flag": 1}, "option 'flag' of engine e must be true or false, not a int"),
        ({"count": True}, "option 'count' of engine e must be a whole number, not a bool"),
        ({"count": 1.5}, "option 'count' of engine e must be a whole number, not a float"),
        ({"count": "3"}, "option 'count' of engine e must be a whole number, not a str"),
        ({"ratio": "x"}, "option 'ratio' of engine e must be a number, not a str"),
        ({"needed": 3}, "option 'needed' of engine e must be a text, not a int"),
        ({"names": "ab"}, "option 'names' of engine e must be a list, not a str"),
        ({"names": [1]}, "option 'names' of engine e, entry 1 must be a text, not a int"),
        ({"inner": ["p"]}, "option 'inner' of engine e, entry 1 must be a table, not a str"),
        ({"table": [1]}, "option 'table' of engine e must be a table, not a list"),
        ({"maybe": "1"}, "option 'maybe' of engine e must be a whole number, not a str"),
        ({"count": 0}, "engine e: count must be at least 1"),
    ],
)
def test_a_wrong_value_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    """The message says which option of what, what it must be and what it is."""
    with pytest.raises(ConfigError) as caught:
        read(**options)
    assert str(caught.value) == sentence


def test_a_misspelt_option_is_refused_with_a_suggestion() -> None:
    """Unknown options never pass silently, at any depth."""
    with pytest.raises(UnknownNameError, match="did you mean 'count'"):
        read(cuont=1)
    with pytest.raises(UnknownNameError, match="did you mean 'scale'"):
        read(inner=[{"path": "p", "scael": 1}])


def test_a_lacking_option_is_named() -> None:
    """An option without default must be given."""
    with pytest.raises(ConfigError, match="engine e needs the option 'needed'"):
        read_options(Sample, {}, who="engine e")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"slots": 0}, "slots must be at least 1"),
        ({"context": 3}, "context must be at least 16"),
        ({"cache_type_k": "q3"}, "cache_type_k must be one of 'f32'"),
        ({"prompt_cache": "on"}, "prompt_cache must be one of 'off', 'user'"),
        ({"cache_type_v": "q8_0", "flash_attention": "off"}, "'q8_0' needs flash attention"),
        ({"mmap": "never"}, "mmap must be one of 'auto', 'on', 'off'"),
        ({"ubatch": 1024}, "ubatch \\(1024\\) cannot exceed batch \\(512\\)"),
        ({"draft_p_min": 1.5}, "draft_p_min is a probability"),
        ({"draft_min": 9}, "draft_min \\(9\\) cannot exceed draft_max \\(3\\)"),
        ({"ngram": "magic"}, "ngram must be one of"),
        ({"lora": [{"scale": 1.0}]}, "needs the option 'path'"),
    ],
)
def test_llama_cpp_refuses_what_cannot_work(options: dict[str, object], part: str) -> None:
    """Ranges and combinations are checked before a model is loaded."""
    with pytest.raises(ConfigError, match=part):
        llama_cpp.open_engine(MODEL, options)


def test_llama_cpp_maps_or_reads_the_weights_as_it_is_told() -> None:
    """Nothing is said to the library unless somebody decided."""
    library = pytest.importorskip("xllamacpp", reason="needs the extra [llama]")
    modes = library.llama_load_mode
    expected = {
        "auto": library.CommonParams().load_mode,
        "on": modes.LLAMA_LOAD_MODE_MMAP,
        "off": modes.LLAMA_LOAD_MODE_NONE,
    }
    assert len({int(mode) for mode in expected.values()}) == 3
    for mmap, mode in expected.items():
        made = parameters(library, "m.gguf", LlamaCppOptions(mmap=mmap), "key")
        assert int(made.load_mode) == int(mode), mmap


def test_llama_cpp_names_the_files_it_needs() -> None:
    """Draft model and adapters are further files to check."""
    options = LlamaCppOptions(draft="d.gguf", lora=(Lora(path="l.gguf"),))
    assert options.files == (("draft model", "d.gguf"), ("LoRA adapter", "l.gguf"))


@pytest.mark.parametrize("module", [llama_cpp, transformers])
def test_engines_that_run_a_model_need_one(module: object) -> None:
    """Without a model there is nothing to run."""
    with pytest.raises(ConfigError, match="needs a model"):
        module.open_engine(None, {})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [(llama_cpp, "xllamacpp", "llama"), (transformers, "torch", "torch")],
)
def test_a_missing_package_names_its_extra(
    module: object, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"'{package}'.*lichen\[{extra}\]"):
        module.open_engine(MODEL, {})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"dtype": "int3"}, "dtype must be one of"),
        ({"threads": -1}, "context and threads must be at least 0"),
    ],
)
def test_transformers_refuses_what_cannot_work(options: dict[str, object], part: str) -> None:
    """Ranges are checked before torch is imported."""
    with pytest.raises(ConfigError, match=part):
        transformers.open_engine(MODEL, options)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"base_url": "ftp://x"}, "base_url must be an http or https address"),
        ({"base_url": "localhost:8000"}, "base_url must be an http or https address"),
        ({"model": ""}, "model must name the server's model"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"retries": -1}, "retries at least 0"),
        ({"read_timeout_s": 0}, "longer than 0 s"),
        ({"capabilities": ["fly"]}, "got 'fly'"),
        ({"answer_prefix": "yes"}, "answer_prefix must be one of"),
        ({"api_key": "a", "api_key_env": "B"}, "not both"),
    ],
)
def test_openai_http_refuses_what_cannot_work(options: dict[str, object], part: str) -> None:
    """Addresses, names and ranges are checked before anything is sent."""
    with pytest.raises(ConfigError, match=part):
        openai_http.open_engine(None, {"base_url": "http://h/v1", "model": "m", **options})


def test_a_key_comes_from_the_environment() -> None:
    """A named variable must be set; the key is then read from it."""
    options = OpenAIHttpOptions(base_url="http://h/v1", model="m", api_key_env="MY_KEY")
    assert options.key({"MY_KEY": "s3cret"}) == "s3cret"
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        options.key({})


def test_a_key_is_not_shown() -> None:
    """Options can be printed and logged."""
    options = OpenAIHttpOptions(base_url="http://h/v1", model="m", api_key="s3cret")
    assert "s3cret" not in repr(options)
