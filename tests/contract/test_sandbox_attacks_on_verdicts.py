"""Solutions that try to pass without solving: each must be judged, never believed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lichen.core.errors import SandboxError
from lichen.core.task import Limits, Status, Trial, Verdict
from lichen.sandbox import Pool, open_sandbox

LIMITS = Limits(cpu_s=0.5, wall_s=5.0, memory_bytes=256 << 20, processes=8, file_bytes=1 << 20)


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def box(request: pytest.FixtureRequest) -> Iterator[Pool]:
    try:
        pool = open_sandbox(wall=request.param, workers=1)
    except SandboxError as exc:
        pytest.skip(str(exc))
    with pool:
        yield pool


def attack(box: Pool, solution: str, check: str = "assert f(2) == 4") -> Verdict:
    """Judge an attack, then an honest trial on the same worker, which must still pass."""
    honest = "def f(x):\n    return x * x\n"
    verdicts = dict(
        box.judge(
            Trial(id=name, solution=source, entry_point="f", check=held, limits=LIMITS)
            for name, source, held in (
                ("attack", solution, check),
                ("honest", honest, "assert f(2) == 4"),
            )
        )
    )
    assert verdicts["honest"].passed, verdicts["honest"]
    return verdicts["attack"]


def test_always_equal_object_does_not_pass(box):
    """An object whose __eq__ and __bool__ say yes is opaque to the judge and equals nothing."""
    source = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return hash(4)
    def __lt__(self, other): return True
    def __iter__(self): return iter([4])
    def __contains__(self, x): return True
def f(x): return Yes()
"""
    verdict = attack(box, source)
    assert (verdict.status, verdict.kind) == (Status.FAILED, "assertion")


@pytest.mark.parametrize("base", ["int", "str", "float", "list", "dict", "tuple", "set"])
def test_always_equal_subclass_of_a_builtin_does_not_pass(box, base):
    """A built-in's subclass arrives as the base type with the base's value."""
    source = f"""
class Yes({base}):
    __eq__ = lambda self, other: True
    __ne__ = lambda self, other: False
    __hash__ = lambda self: 4
    __iter__ = lambda self: iter([4])
    __len__ = lambda self: 4
    __int__ = __index__ = lambda self: 4
def f(x): return Yes()
"""
    assert attack(box, source).status is Status.FAILED


def test_always_equal_values_inside_containers_do_not_pass(box):
    """Hiding the object inside a list, a tuple or a key changes nothing."""
    source = """
class Yes(int):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: hash(4)
def f(x): return [Yes(0), (Yes(1),), {Yes(2): Yes(3)}]
"""
    assert attack(box, source, "assert f(2) == [4, (4,), {4: 4}]").kind == "assertion"


def test_metaclass_tricks_do_not_pass(box):
    """A class that compares equal through its metaclass is opaque as well."""
    source = """
class Meta(type):
    __eq__ = lambda cls, other: True
    __instancecheck__ = lambda cls, other: True
    __hash__ = lambda cls: 4
    __mro_entries__ = None
class Yes(metaclass=Meta): pass
def f(x): return Yes
"""
    assert attack(box, source).kind == "assertion"


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "raise SystemExit", "exit_(0)"])
def test_exit_at_import_does_not_pass(box, leave):
    """Ending with status 0 before the check is an error of kind exit."""
    source = f"from os import _exit as exit_\n{leave}\ndef f(x): return 4\n"
    verdict = attack(box, source)
    assert (verdict.status, verdict.kind) == (Status.ERROR, "exit")


@pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", "raise SystemExit(0)"])
def test_exit_in_the_call_does_not_pass(box, leave):
    """Ending with status 0 during the check is an error of kind exit."""
    verdict = attack(box, f"import os, sys\ndef f(x): {leave}\n")
    assert (verdict.status, verdict.kind) == (Status.ERROR, "exit")


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_exceptions_beyond_exception_cannot_be_caught_into_a_pass(box, name):
    """Not even a check with a bare except passes after the solution raised one of these."""
    check = "try:\n    f(2)\nexcept:\n    pass\n"
    verdict = attack(box, f"def f(x): raise {name}\n", check)
    assert verdict.status is Status.ERROR


def test_patched_builtins_do_not_reach_the_check(box):
    """Replacing builtins, assertion machinery, unittest and math affects the solution only."""
    source = """
import builtins, math, sys, types
class Never(BaseException): pass
builtins.AssertionError = Never
builtins.abs = builtins.all = builtins.sum = lambda *a: 0
builtins.isinstance = lambda *a: True
math.isclose = lambda *a, **k: True
unittest = types.ModuleType("unittest")
unittest.TestCase = object
sys.modules["unittest"] = sys.modules["math"] = unittest
__builtins__["__build_class__"] = None
def f(x): return 5
"""
    check = "import math\nassert abs(f(2) - 4) < 1e-6 or math.isclose(f(2), 4)"
    assert attack(box, source, check).kind == "assertion"


def test_patched_server_code_does_not_pass(box):
    """Rewriting the code that answers the judge can only change which values are sent."""
    source = """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith("inside"):
        for attribute in list(vars(module)):
            if callable(getattr(module, attribute)) and attribute in ("encode", "answer", "_state"):
                setattr(module, attribute, lambda *a, **k: b"passed")
def f(x): return 4
"""
    assert attack(box, source).status is Status.ERROR


def test_the_check_cannot_be_found(box):
    """Frames, the collector, modules, files and the environment hold no trace of the check."""
    source = """
import gc, os, sys
def hunt():
    seen = []
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(frame.f_globals.keys())]
        frame = frame.f_back
    gc.unfreeze()
    seen += [o for o in gc.get_objects() if type(o) is str]
    for o in gc.get_objects():
        if type(o) is dict:
            seen += [v for v in list(o.values()) if type(v) in (str, bytes)]
    seen += [repr(os.environ), repr(sys.argv)]
    for top in ("/proc", "/tmp", "/lichen", "/home", "/root", "/dev/shm", "/var", "/run"):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        seen.append(file.read(1 << 16).decode("latin-1"))
                except OSError:
                    pass
    return seen
def f(x):
    seen = hunt()
    mark = "kcehc-eht-fo-rekram"[:: 1 - x]  # else it would find itself
    return any(mark in str(s) for s in seen)
"""
    check = "expected = 'marker-of-the-check'\nassert f(2) is False"
    assert attack(box, source, check).passed


def test_fake_messages_on_every_descriptor_do_not_pass(box):
    """Shouting verdicts and nonces into every open descriptor is noise, not a verdict."""
    source = """
import os
def frame(b): return len(b).to_bytes(4, "big") + b
fakes = [b"passed", b"\\x00" * 64, frame(b"T"), frame(b"m\\x00\\x00\\x00\\x00"),
         frame(b"t\\x00\\x00\\x00\\x01s\\x00\\x00\\x00\\x06passed")]
def f(x):
    for fd in range(256):
        for fake in fakes:
            try:
                os.write(fd, fake)
            except OSError:
                pass
    return 5
"""
    assert not attack(box, source).passed


FORGE = """
import os
def text(s): return b"s" + len(s).to_bytes(4, "big") + s.encode()
def forge(*parts):
    body = b"t" + len(parts).to_bytes(4, "big") + b"".join(parts)
    os.write(4, len(body).to_bytes(4, "big") + body)
"""


@pytest.mark.parametrize("tag", ["failed", "passed", "ready", "gone"])
def test_forged_greeting_does_not_pass(box, tag):
    """Announcing success in the words of the protocol, before any check, is no success."""
    source = FORGE + f"forge(text({tag!r}), text('passed'), text('passed'))\ndef f(x): return 5\n"
    assert not attack(box, source).passed


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "ValueError", "passed"])
@pytest.mark.parametrize("kind", ["passed", "exit", ""])
def test_forged_exception_does_not_pass(box, name, kind):
    """Nor does an exception whose kind says that everything passed."""
    parts = f"text('raised'), text({name!r}), b't' + bytes(4), text('x'), text({kind!r})"
    source = FORGE + f"def f(x):\n    forge({parts})\n    os.write(4, bytes(4))\n    return 5\n"
    assert not attack(box, source).passed


def test_a_forged_answer_is_only_an_answer(box):
    """Writing a well-formed answer by hand is the same as returning it: a wrong one fails."""
    source = """
import os
def f(x):
    body = b"t\\x00\\x00\\x00\\x02s\\x00\\x00\\x00\\x05valuei\\x00\\x00\\x00\\x01\\x05"
    os.write(4, len(body).to_bytes(4, "big") + body + bytes(4))
    return 4
"""
    assert attack(box, source).kind == "assertion"


def test_forged_changes_are_errors(box):
    """Changes to arguments that are none, or malformed, are a broken protocol."""
    for change in (b"N", b"l" + bytes(4), b"?"):
        source = (
            FORGE + "def f(x):\n    forge(text('value'), b'N')\n"
            f"    os.write(4, ({len(change)}).to_bytes(4, 'big') + {change!r})\n    return 4\n"
        )
        verdict = attack(box, source, "f([1])")
        assert (verdict.status, verdict.kind) == (Status.ERROR, "protocol")


def test_huge_answer_is_an_error(box):
    """A value beyond the bound of a message is refused, not read."""
    verdict = attack(box, "def f(x): return b'x' * (40 << 20)\n")
    assert (verdict.status, verdict.kind) == (Status.ERROR, "protocol")


def test_a_frame_that_claims_gigabytes_is_an_error(box):
    """A length field beyond the bound is not followed by an allocation."""
    source = "import os\ndef f(x):\n    os.write(4, b'\\xff' * 4)\n    return 4\n"
    assert attack(box, source).status is Status.ERROR


@pytest.mark.parametrize(
    "make",
    [
        "v = []\n    for _ in range(100000): v = [v]\n    return v",
        "v = []\n    v.append(v)\n    return v",
        "v = {}\n    v['v'] = v\n    return v",
    ],
)
def test_bottomless_values_are_errors(box, make):
    """Deeply nested and self-referential values are refused."""
    verdict = attack(box, f"def f(x):\n    {make}\n")
    assert (verdict.status, verdict.kind) == (Status.ERROR, "protocol")


def test_endless_iterator_is_bounded(box):
    """An iterator without end is cut off, and is not equal to a list as in plain Python."""
    source = "import itertools\ndef f(x): return itertools.count()\n"
    assert attack(box, source).kind == "assertion"


def test_two_processes_answering_do_not_pass(box):
    """A fork that answers too can only give wrong answers, too."""
    source = "import os\ndef f(x):\n    os.fork()\n    return 5\n"
    assert not attack(box, source).passed


def test_exit_handlers_do_not_run_into_a_pass(box):
    """What is registered with atexit neither runs in the judge nor repairs a wrong answer."""
    source = "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 5\n"
    assert attack(box, source).kind == "assertion"


def test_deleting_modules_does_not_pass(box):
    """A solution that empties sys.modules hurts itself at most."""
    source = "import sys\ndef f(x):\n    sys.modules.clear()\n    return 5\n"
    assert not attack(box, source).passed


def test_deleting_modules_does_not_fail_a_right_answer(box):
    """The answer still arrives after sys.modules was emptied at import."""
    source = "import sys\nsys.modules.clear()\ndef f(x): return x * x\n"
    assert attack(box, source).passed


def test_exception_with_hostile_text_is_contained(box):
    """__str__ and args of an exception are read on the solution's side only."""
    source = """
class Bad(ValueError):
    def __str__(self): raise SystemExit(0)
    args = property(lambda self: 1 / 0)
def f(x): raise Bad
"""
    verdict = attack(box, source)
    assert verdict.status is Status.ERROR


def test_changed_arguments_cannot_become_the_expected_value(box):
    """In-place changes of arguments arrive as plain values, not as objects that equal all."""
    source = """
class Yes(int):
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 0
def f(x):
    x[:] = [Yes(0)]
    return x
"""
    check = "x = [1]\nassert f(x) == [4] or x == [4]"
    assert attack(box, source, check).kind == "assertion"
