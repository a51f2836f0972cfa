"""The page as text: self-contained, bounded, and safe whatever the records hold."""

from __future__ import annotations

import base64
import builtins
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from lichen.core.errors import MissingDependencyError
from lichen.core.generation import Step
from lichen.report import figures, html
from lichen.report.problems import bounded, problems
from lichen.testing.records import fake_run
from lichen.testing.summaries import fake_route, fake_summary

ATTACK = "</script></style></pre>\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"


class Outline(HTMLParser):
    """Collects what a browser could run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag and its attributes."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


@pytest.fixture(scope="module")
def page() -> str:
    fake = fake_run()
    return html.render(fake.run, fake.samples, fake_summary())


def outline(text: str) -> Outline:
    """Parse a page."""
    found = Outline()
    found.feed(text)
    return found


def hostile_page() -> str:
    """Render a page where every text that can come from outside attacks it."""
    fake = fake_run(solutions=("plain", ATTACK))
    env = replace(fake.run.environment, cpu_model=ATTACK, versions=((ATTACK, ATTACK),))
    solutions = tuple(
        replace(s, settings=((ATTACK, ATTACK),), engine=ATTACK) for s in fake.run.solutions
    )
    run = replace(
        fake.run, environment=env, notes=(ATTACK,), task=ATTACK, solutions=solutions, spec=ATTACK
    )
    samples = [
        replace(
            s,
            text=ATTACK,
            error=ATTACK,
            ledger=(Step(actor=ATTACK, action=ATTACK, detail=ATTACK, answer=ATTACK),),
            score=replace(s.score, verdict=replace(s.score.verdict, message=ATTACK, kind=ATTACK)),
        )
        for s in fake.samples
        if s.score.verdict is not None
    ]
    summary = fake_summary(("plain", ATTACK))
    factors = tuple(
        replace(f, name=ATTACK, source=f"https://evil.example/{ATTACK}", note=ATTACK)
        for f in summary.factors.factors
    )
    return html.render(
        run,
        samples,
        replace(
            summary,
            factors=replace(summary.factors, region=ATTACK, factors=factors),
            not_measured=((ATTACK, ATTACK),),
            notes=(ATTACK,),
            routes=(replace(fake_route(ATTACK, others=((ATTACK, 9.0, 0.5),)), note=ATTACK),),
        ),
    )


def test_the_page_fetches_and_runs_nothing_foreign(page: str) -> None:
    """No element that loads something, no inline handler or style, one script and one style."""
    for text in (page, hostile_page()):
        found = outline(text)
        assert found.tags.count("script") == found.tags.count("style") == 1
        loading = {"img", "link", "iframe", "object", "embed", "image", "use", "video", "audio"}
        assert not loading & set(found.tags)
        names = {name for _, name, _ in found.attributes}
        assert not {n for n in names if n.startswith("on")} | (names & {"style", "src", "srcdoc"})
        links = [v for tag, n, v in found.attributes if n in {"href", "xlink:href"}]
        assert all(v.startswith(("#", "https://")) for v in links)


def test_the_policy_allows_our_style_and_script_by_hash_alone(page: str) -> None:
    """The content security policy forbids all else, and its hashes are of what is in the page."""
    policy = next(v for tag, n, v in outline(page).attributes if n == "content" and "src" in v)
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        body = page.split(f"<{tag}>")[1].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_every_hostile_text_arrives_as_text() -> None:
    """The attack appears escaped many times and unescaped never; templates are not evaluated."""
    text = hostile_page()
    assert "<script>alert(1)" not in text
    assert "onerror=alert(2)>" not in text
    assert text.count("&lt;script&gt;alert(1)") > 20
    assert "{{7*7}}" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)


def test_every_section_is_there(page: str) -> None:
    """Verdict, comparison, drawings, problems, what is missing, method, factors, how to redo."""
    ids = {v for _, n, v in outline(page).attributes if n == "id"}
    assert {
        "verdict", "compared", "plane", "stages", "latency", "problems", "missing", "method",
        "factors", "solutions", "environment", "again", "notes",
    } <= ids  # fmt: skip
    assert "no GPU in this machine" in page
    assert "lichen bench fake-0000.toml" in page
    assert len(ids) == len([1 for _, n, _ in outline(page).attributes if n == "id"])


def test_drawings_have_names_words_and_page_colours(page: str) -> None:
    """Each drawing has an accessible name and description; no placeholder colour is left."""
    drawings = [v for tag, n, v in outline(page).attributes if tag == "svg" and n == "aria-label"]
    assert len(drawings) == 9
    assert page.count("<desc") == 9
    assert "#0e00" not in page
    assert 'fill="var(--series-1)"' in page


def test_a_big_run_gives_a_page_that_can_be_sent() -> None:
    """164 problems with 20 attempts each stay under 8 MB even if every character must be escaped."""
    fake = fake_run(problems=164, samples=20, solutions=("plain",))
    evil = [replace(s, text="<\u202e" * 5_000, error="<" * 5_000) for s in fake.samples]
    text = html.render(fake.run, evil, fake_summary(("plain",)))
    assert len(text.encode()) < 8_000_000
    assert "more characters are in the store" in text


def test_an_answer_is_cut_to_its_bytes_and_says_how_much_is_gone() -> None:
    """The bound counts what escaping makes of the text, and nothing is lost uncounted."""
    text, left_out = bounded("<" * 100, 100)
    assert text == "<" * 25
    assert left_out == 75
    assert bounded("short", 100) == ("short", 0)


def test_problems_keep_the_task_s_order_and_all_solutions() -> None:
    """One row per problem, one side per solution, one attempt per sample."""
    fake = fake_run(problems=12, samples=3)
    found = problems(fake.run, fake.samples, fake_summary())
    assert [r.id for r in found.rows] == list(fake.run.problem_ids)
    assert {len(r.sides) for r in found.rows} == {2}
    assert sum(len(r.attempts) for r in found.rows) == len(fake.samples)
    assert found.note == ""
    assert all("of 3 solved" in side.outcome for r in found.rows for side in r.sides)


def test_without_energy_the_page_says_so_and_draws_cpu_time() -> None:
    """Missing energy is never 0: the drawings fall back to CPU time and the table to words."""
    fake = fake_run(with_energy=False)
    summary = fake_summary(with_energy=False)
    text = html.render(fake.run, fake.samples, summary)
    assert "not measured" in text
    assert "no RAPL in this virtual machine" in text
    assert "CPU time per attempt, CPU-s" in text
    assert " 0 J" not in text
    plane = figures.quality_plane(summary)
    assert plane.wide is not None
    assert "CPU-s per attempt" in plane.wide.description


def test_a_lone_or_empty_run_still_makes_a_page() -> None:
    """One solution has no comparison; no samples have no problems: both pages say what there is."""
    fake = fake_run(solutions=("plain",))
    alone = html.render(fake.run, fake.samples, fake_summary(("plain",)))
    assert "plain scores 0.56 [0.49, 0.64] pass@1 on humaneval, at 13\u201351 J (modelled)" in alone
    assert 'id="compared"' not in alone
    empty = html.render(fake.run, [], fake_summary(("plain",)))
    assert "no attempt is stored" in empty
    assert "The engine reported no times" in empty


def test_the_verdict_leaves_numbers_to_the_line_below_but_keeps_names() -> None:
    """Brackets go to the evidence line, save those that belong to a solution's name."""
    summary = fake_summary(("a (run-1)", "b"))
    c = replace(
        summary.comparisons[0], conclusion="b uses less than a (run-1) (ratio 0.6, 0.5 to 0.7)."
    )
    assert html.headline(replace(summary, comparisons=(c,))) == "b uses less than a (run-1)."


@pytest.mark.parametrize("package", ["altair", "jinja2", "vl_convert"])
def test_a_missing_package_names_the_extra(
    package: str, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """Without the report extra, the error says what to install."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    fake = fake_run(problems=2)
    with pytest.raises(MissingDependencyError, match=r"lichen\[report\]"):
        html.render(fake.run, fake.samples, fake_summary())


def _themes() -> dict[str, dict[str, str]]:
    css = files("lichen.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", b)) for b in blocks]
    return dict(zip(("light", "dark", "print"), found, strict=True))


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_every_text_colour_meets_wcag_aa(theme: str) -> None:
    """Text, accent, solutions and segment labels have a contrast of at least 4.5 in each theme."""
    colours = _themes()[theme]
    pairs = [
        (name, ground) for name in ("ink", "quiet", "accent") for ground in ("paper", "raised")
    ]
    pairs += [(f"series-{i}", "paper") for i in range(6)]
    pairs += [(f"on-{s}", f"stage-{s}") for s in ("prefill", "decode", "sandbox", "idle")]
    for text, ground in pairs:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        contrast = (light + 0.05) / (dark + 0.05)
        assert contrast >= 4.5, f"{text} on {ground}: {contrast:.2f}"
