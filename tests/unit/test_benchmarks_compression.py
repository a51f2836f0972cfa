"""The script that measures compression recipes: rows kept as they come, pages, and pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.dom.minidom import parseString

import pytest

from lichen.compression.applying import methods_of
from lichen.compression.gate.ports import CostValue
from lichen.compression.kernel_cost import Workload
from lichen.compression.method import MethodContext
from lichen.compression.methods import METHODS
from lichen.compression.recipe import RecipeStep, parse_recipe
from lichen.core.errors import ConfigError
from lichen.core.interval import Interval
from lichen.core.measurement import Missing
from lichen.core.model import ModelArtifact
from lichen.engines.llama_cpp.native.quantise import Quantiser
from lichen.meter import open_meter
from lichen.testing.gguf_files import TinyModel

pytest.importorskip("gguf")

Script = Callable[[str], ModuleType]
FOLDER = Path(__file__).parents[2] / "benchmarks"
PAGE = "docs/explanation/compression/{}.md"
FACTS = {"tokens": 64, "rounds": 2, "lichen": "1"}


@pytest.fixture
def measuring(script: Script) -> ModuleType:
    """The script that measures."""
    return script("recipes")


@pytest.fixture
def pages(script: Script) -> ModuleType:
    """The script that writes the pages."""
    return script("compression_pages")


@pytest.fixture
def drawing(script: Script) -> ModuleType:
    """The script that draws."""
    return script("compression_picture")


@pytest.fixture
def table(script: Script) -> ModuleType:
    """The recipes."""
    return script("compression_rows")


def three(value: float) -> dict[str, float]:
    """An interval of a result."""
    return {"low": value * 0.75, "value": value, "high": value * 1.25}


def a_row(kl: float = 0.0625, cpu: float = 0.5, **more: object) -> dict[str, Any]:
    """What one recipe showed."""
    return {
        "command": "python benchmarks/recipes.py --made-up",
        "date": "2026-01-02",
        "machine": "a machine",
        "load_average": 0.5,
        **FACTS,
        "bytes": 60_000_000,
        "parent_bytes": 80_000_000,
        "made": {"wall_s": 12.0, "cpu_s": 20.0, "taken_over": 0.25},
        "notes": [],
        "agreement": {
            "kl_nats": three(kl),
            "flips": three(0.125),
            "parent_perplexity": 4.0,
            "child_perplexity": 4.5,
            "note": "",
        },
        "cost": {"request": three(cpu), "prefill": three(cpu), "decode": three(cpu)},
        **more,
    }


def stored(**rows: dict[str, Any]) -> dict[str, Any]:
    """Results of one model."""
    return {"smollm2-135m": {"sha256": "a", "rows": rows}}


def test_the_pages_hold_what_was_measured() -> None:
    """The documentation's measured sections and pictures are what the stored results give."""
    done = subprocess.run(
        [sys.executable, FOLDER / "compression_pages.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_recipe_can_be_read_and_made(table: ModuleType) -> None:
    """All methods have a row, labels are unique, and each recipe survives its own text."""
    rows = table.TABLE
    assert {step.method for r in rows for step in r.steps} == set(METHODS.names())
    assert len({r.label for r in rows}) == len(rows)
    for row in rows:
        assert len(methods_of(parse_recipe(row.recipe.to_toml()))) == len(row.steps)


def test_pages_show_the_rows_they_are_about(table: ModuleType) -> None:
    """A method has its own rows, importance the three of one type, the gate all of them."""
    assert [r.label for r in table.rows_of("retie")] == ["retie"]
    three_rows = [r.label for r in table.rows_of("importance")]
    assert three_rows == ["IQ4_NL", "IQ4_NL, importance", "IQ4_NL, compensated"]
    compensation = table.rows_of("compensation")
    assert {r.label for r in compensation} > set(three_rows)
    assert all(r.compensated for r in compensation if r.label not in three_rows)
    assert table.rows_of("gate") == table.TABLE
    with pytest.raises(ValueError, match=r"nonsense\.md"):
        table.rows_of("nonsense")


def test_rows_are_chosen_by_method_or_label(table: ModuleType) -> None:
    """A method means all its rows, a label one; a misspelt name is one sentence."""
    labels = [r.label for r in table.chosen(["trim_vocabulary", "IQ4_NL"])]
    assert labels == ["trim 0.1 %", "trim 0.5 %", "IQ4_NL"]
    with pytest.raises(ValueError, match="reti"):
        table.chosen(["reti"])


def test_each_row_is_there_before_the_next_is_measured(
    measuring: ModuleType, table: ModuleType, tmp_path: Path
) -> None:
    """A killed command keeps what it measured, and goes on after it."""
    path = tmp_path / "a" / "compression.json"
    results = measuring.Results(path, "m", "hash")
    first, second = table.TABLE[:2]

    def measured(row: Any) -> dict[str, Any]:
        if row is second:
            raise KeyboardInterrupt
        return {"bytes": 1}

    with pytest.raises(KeyboardInterrupt):
        measuring.measure_rows([first, second], results, FACTS, {"command": "c"}, measured)
    assert json.loads(path.read_text())["m"]["rows"][first.label]["bytes"] == 1
    assert measuring.left([first, second], results, FACTS) == (second,)


def test_a_row_is_measured_anew_when_what_made_it_changed(
    measuring: ModuleType, table: ModuleType, tmp_path: Path
) -> None:
    """Other tokens, another version, another file, or a failure; not what does not apply."""
    path, (row, other) = tmp_path / "compression.json", table.TABLE[:2]
    results = measuring.Results(path, "m", "hash")
    measuring.measure_rows([row], results, FACTS, {}, lambda _: {"not_applicable": "no"})
    assert measuring.left([row], results, FACTS) == ()
    assert measuring.left([row], results, {**FACTS, "tokens": 65}) == (row,)
    assert measuring.left([row], results, {**FACTS, "lichen": "2"}) == (row,)
    assert measuring.left([row], measuring.Results(path, "m", "another"), FACTS) == (row,)
    measuring.measure_rows([other], results, FACTS, {}, lambda _: {"failed": "ran out"})
    assert measuring.left([row, other], results, FACTS) == (other,)


def test_models_do_not_disturb_each_other(
    measuring: ModuleType, table: ModuleType, tmp_path: Path
) -> None:
    """A second model's rows and what it read join the first one's."""
    path, row = tmp_path / "compression.json", table.TABLE[0]
    for model in ("m", "n"):
        results = measuring.Results(path, model, f"hash of {model}")
        results.moments({"wall_s": 1.0, "cpu_s": 2.0})
        results.put(row.label, {"bytes": 1})
    document = json.loads(path.read_text())
    assert {m: list(d["rows"]) for m, d in document.items()} == {"m": ["retie"], "n": ["retie"]}
    assert document["m"]["moments"] == {"wall_s": 1.0, "cpu_s": 2.0}


def test_a_request_weighs_both_phases(script: Script) -> None:
    """The ratio of a request is that of the tokens it is made of, between those of its phases."""
    workbench = script("compression_bench")
    nothing = Missing(reason="not looked at")
    half, same = (Interval(low=v - 0.1, value=v, high=v + 0.1) for v in (0.5, 1.0))
    cost = CostValue(
        prefill=half,
        decode=same,
        load=same,
        memory=nothing,
        rounds=2,
        parent_prefill_s=1.0,
        child_prefill_s=0.5,
        parent_decode_s=3.0,
        child_decode_s=3.0,
    )
    found = workbench.request_ratio(cost, Workload(prompt=100, completion=100))
    assert found.value == pytest.approx((0.5 + 3) / 4)
    assert (found.low, found.high) == pytest.approx((found.value - 0.1, found.value + 0.1))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, script: Script, tmp_path: Path) -> Iterator[Any]:
    """A workbench for a tiny model with a copied output matrix; it makes files and runs none."""
    workbench = script("compression_bench")
    monkeypatch.setattr(workbench.Bench, "_compared", lambda _self, _child: {"compared": True})
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TinyModel(embedding_kind="Q5_0", output_kind="Q8_0", width=256).to_bytes())
    notes: list[str] = []
    asked, computed = workbench.Tally(), workbench.Tally()
    inner = workbench.CountedQuantiser(Quantiser(workers=1), computed)
    kept = workbench.KeptBlocks(inner, tmp_path / "blocks", least=1)
    quantiser = workbench.CountedQuantiser(kept, asked)
    with open_meter() as meter:
        yield workbench.Bench(
            source=ModelArtifact(
                name="tiny",
                path=str(path),
                format="gguf",
                sha256="0" * 64,
                size_bytes=path.stat().st_size,
            ),
            context=MethodContext(quantiser=quantiser, source=path, note=notes.append),
            held_out=(),
            folder=tmp_path,
            meter=meter,
            tokens=64,
            rounds=2,
            notes=notes,
            asked=asked,
            computed=computed,
        )


def test_a_row_says_what_making_it_took(bench: Any, table: ModuleType) -> None:
    """Bytes, time, what was taken over from an earlier row, and remarks; the file is gone."""
    plain = next(r for r in table.TABLE if r.label == "IQ4_NL")
    first, second = bench.measured(plain), bench.measured(plain)
    assert first["bytes"] < first["parent_bytes"] == bench.source.size_bytes
    assert (first["made"]["taken_over"], second["made"]["taken_over"]) == (0.0, 1.0)
    assert first["made"]["wall_s"] > 0
    assert first["compared"]
    assert not list(bench.folder.glob("child*"))


def test_what_a_model_does_not_allow_is_told_from_failures(
    bench: Any, table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused recipes and recipes without effect do not apply; a measurement that broke failed."""
    rows = {r.label: r for r in table.TABLE}
    assert "importance" in bench.measured(rows["IQ4_NL, importance"])["not_applicable"]
    assert bench.measured(rows["kv_cache q8_0"]) == {
        "not_applicable": rows["kv_cache q8_0"].skipped
    }
    same = table.Row(
        label="as it is", steps=(RecipeStep("requantise", {"types": {"output": "Q8_0"}}),)
    )
    assert "every weight stays as it is" in bench.measured(same)["not_applicable"]

    def broken(_self: Any, _child: Path) -> dict[str, Any]:
        raise ConfigError("no text")

    monkeypatch.setattr(type(bench), "_compared", broken)
    assert bench.measured(rows["retie"]) == {"failed": "no text"}


def test_every_page_has_numbers_or_a_reason(pages: ModuleType) -> None:
    """A row stands on its method's page and in the tables of all; other pages say why not."""
    names = [*METHODS.names(), "gate", "importance", "compensation"]
    old = {n: f"# {n}\n\n{pages.MARKER}\nold text\n" for n in names}
    document = stored(retie=a_row(notes=["a note"]))
    new = pages.render(document, {**old, "unmarked": "stays"})
    assert PAGE.format("unmarked") not in new
    for name in ("retie", "gate", "measured"):
        text = new[PAGE.format(name)]
        assert "60.0 MB (0.750)" in text
        assert "0.0625 [0.0469, 0.0781]" in text
        assert "12.5 [9.4, 15.6] %" in text
        assert "4.00 to 4.50" in text
        assert "12 s (20 CPU-s), 25 % taken over" in text
        assert "- retie: a note" in text
        assert "`python benchmarks/recipes.py --made-up`" in text
        assert "--model qwen2.5-coder-0.5b` has not been run" in text
    for name in {*names} - {"retie", "gate"}:
        assert "- smollm2-135m: the command left it out" in new[PAGE.format(name)]
    assert "old text" not in "".join(new.values())
    again = {n: new[PAGE.format(n)] for n in names}
    assert pages.render(document, again) == new


def test_what_does_not_apply_is_not_left_out(pages: ModuleType) -> None:
    """A recipe that a model does not allow, or that failed, is in the page with its sentence."""
    facts = {k: v for k, v in a_row().items() if k not in ("agreement", "cost", "bytes")}
    document = stored(
        retie={**facts, "not_applicable": "there is one matrix only"},
        **{"trim 0.1 %": {**facts, "failed": "memory ran out"}},
    )
    old = dict.fromkeys(("retie", "trim_vocabulary"), pages.MARKER)
    new = pages.render(document, old)
    assert "- retie: not applicable: there is one matrix only" in new[PAGE.format("retie")]
    trimmed = new[PAGE.format("trim_vocabulary")]
    assert "- trim 0.1 %: not measured: memory ran out" in trimmed
    assert "- trim 0.5 %: not measured: the command left it out" in trimmed
    assert not any(name.endswith(".svg") for name in new)


def test_rows_of_several_commands_name_theirs(pages: ModuleType) -> None:
    """Where a table was made by two commands, each says which rows are its own."""
    document = stored(retie=a_row(), IQ4_NL=a_row(command="another", load_average=2.0))
    (text,) = (pages.render(document, {})[PAGE.format("measured")],)
    assert "\nretie: 64 tokens" in text
    assert "\nIQ4_NL: 64 tokens" in text
    assert "`another`" in text


def test_a_page_with_two_markers_is_refused(pages: ModuleType) -> None:
    """Text between two markers would be lost, so that is an error that names the page."""
    with pytest.raises(ValueError, match=r"retie\.md"):
        pages.render({}, {"retie": pages.MARKER * 2})


def test_each_measured_model_has_its_picture(pages: ModuleType) -> None:
    """The page shows the drawing that is written beside it; models without numbers have none."""
    new = pages.render(stored(retie=a_row()), {})
    assert "docs/images/compression-smollm2-135m.svg" in new
    text = new[PAGE.format("measured")]
    assert text.count("../../images/") == 1
    assert "../../images/compression-smollm2-135m.svg" in text
    assert text.count("has not been run") == 2


def test_the_front_is_what_nothing_beats(drawing: ModuleType) -> None:
    """What is worse than another in both is not on it; the parent is, being the most exact."""

    def point(label: str, cpu: float, kl: float) -> Any:
        return drawing.Point(label=label, cpu=(cpu, cpu, cpu), size=1.0, kl=(kl, kl, kl))

    points = [drawing.PARENT, point("good", 0.5, 0.1), point("bad", 0.6, 0.2)]
    points.append(point("better", 0.8, 0.01))
    front = drawing.on_front(points, lambda p: p.cpu[1])
    assert [p.label for p in front] == ["good", "better", "parent"]


def test_the_picture_stands_for_itself(drawing: ModuleType) -> None:
    """It is well-formed, the same each time, says all labels twice, and is safe with odd names."""
    points = [
        drawing.Point(label=f"row {i}", cpu=(0.5, 0.6, 9.0), size=0.7, kl=(0.0, i / 50, 1.0))
        for i in range(12)
    ]
    svg = drawing.picture('<m> & "n"', points)
    assert svg == drawing.picture('<m> & "n"', points)
    drawn = parseString(svg)  # noqa: S318 (our own drawing)
    texts = [t.firstChild.data for t in drawn.getElementsByTagName("text")]
    for label in ("parent", *(p.label for p in points)):
        assert texts.count(label) == 2
    assert drawn.documentElement.getAttribute("aria-label").startswith('<m> & "n"')
    assert "row 11: KL 0.2200 nats" in drawn.getElementsByTagName("desc")[0].firstChild.data
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    with pytest.raises(ValueError, match="nothing to draw"):
        drawing.picture("m", [])


def test_labels_stay_on_the_picture_and_apart(drawing: ModuleType) -> None:
    """A crowd of points at one place still has readable labels."""
    labels = drawing._Labels(0.0)
    for i in range(8):
        labels.place(f"label {i}", (200.0, 200.0 + i), "black")
    boxes = [b for b in labels.taken if b[2] - b[0] > 10]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert box[0] >= 0
        assert box[1] >= 0
        assert not any(drawing._overlap(box, other) for other in boxes[:i])
