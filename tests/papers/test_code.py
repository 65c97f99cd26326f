"""What ran is found, whatever was compiled before; a digest hears every change of the code and no change of the prose."""

import ast
import importlib
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

from nablax.papers import _code

FILES = {
    "__init__.py": "",
    "room/__init__.py": '"""A room."""\nfrom ._method import method\nfrom ._other import other',
    "room/_constants.py": "SCALE = 3.0",
    "room/_helper.py": """
        import functools
        from ._constants import SCALE

        def helper(x):
            return SCALE * x

        @functools.lru_cache
        def remembered(n):
            return n + 1
    """,
    "room/_method.py": """
        import jax
        from ._helper import helper, remembered

        @jax.jit
        def method(x):
            return helper(x) + 1

        def counted():
            return remembered(1)
    """,
    "room/_new.py": "def new(x):\n    return x",
    "room/_other.py": "def other(x):\n    return x",
    "claim.py": """
        from . import room
        from .room import other as also

        def check(x):
            return room.method(x)
    """,
    "aside.py": "def aside(x):\n    return x",
}


@pytest.fixture
def planted(plant):
    """A package of a claim that calls a method, jitted, that calls a helper, which takes a constant from elsewhere."""
    return plant(FILES)


def module(source, name):
    return importlib.import_module(f"{source.name}.{name}")


def test_a_helper_of_a_function_that_was_compiled_before_is_found(planted):
    claim = module(planted, "claim")
    claim.check(jnp.ones(3))
    with _code._watched(names := set()):
        claim.check(jnp.ones(3))
    assert str(planted / "claim.py") in names and str(planted / "room/_helper.py") not in names  # the trap
    with _code.code_that_runs() as ran:
        claim.check(jnp.ones(3))
    assert ran == {"claim.py", "room/_method.py", "room/_helper.py"}


def test_what_a_cache_of_our_own_remembers_is_found(planted):
    method = module(planted, "room._method")
    method.counted()
    with _code._watched(names := set()):
        method.counted()
    assert str(planted / "room/_helper.py") not in names
    with _code.code_that_runs() as ran:
        method.counted()
    assert ran == {"room/_method.py", "room/_helper.py"}


def test_what_runs_in_another_thread_or_is_called_back_from_a_program_is_found(planted):
    aside, other = module(planted, "aside").aside, module(planted, "room._other").other
    with _code.code_that_runs() as ran:
        thread = threading.Thread(target=aside, args=(1,))
        thread.start()
        thread.join()
    assert ran == {"aside.py"}
    with _code.code_that_runs() as ran:
        like = jax.ShapeDtypeStruct((), jnp.float32)
        jax.jit(lambda x: jax.pure_callback(other, like, x))(jnp.float32(1)).block_until_ready()
    assert ran == {"room/_other.py"}


def test_nothing_is_watched_any_more_once_the_block_has_ended(planted):
    before = sys.getprofile(), threading.getprofile()
    with pytest.raises(KeyboardInterrupt), _code.code_that_runs():
        raise KeyboardInterrupt
    assert (sys.getprofile(), threading.getprofile()) == before
    with _code.code_that_runs() as ran:
        pass
    module(planted, "aside").aside(1)
    assert ran == set()


def test_watching_is_not_itself_among_what_ran():
    with _code.code_that_runs() as ran:
        pass
    assert ran == set()


def test_files_that_what_ran_imports_from_count_and_rooms_listings_do_not(planted):
    ran = {"claim.py", "room/_method.py", "room/_helper.py"}
    code = _code.digests(ran)
    assert set(code) == ran | {"room/_constants.py", "room/_other.py"}
    assert _code.changes(code) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("room/_constants.py", "3.0", "3.0  # three", []),
        ("room/_constants.py", "SCALE = 3.0", '"""A constant."""\n\nSCALE = (\n    3.0\n)', []),
        ("room/_method.py", "    return helper(x) + 1", '    """Add one."""\n    return helper(x) + 1', []),
        ("room/_constants.py", "3.0", "3.5", ["room/_constants.py changed"]),
        ("room/_constants.py", "3.0", "'3.0'", ["room/_constants.py changed"]),
        ("room/_helper.py", "SCALE * x", "x * SCALE", ["room/_helper.py changed"]),
        ("room/_helper.py", "@functools.lru_cache\n", "", ["room/_helper.py changed"]),
        ("room/__init__.py", '"""A room."""', '"""A room."""\nfrom ._new import new', []),
        # A name that the room's listing leads elsewhere, while every recorded file says what it said.
        ("room/__init__.py", "._method import", "._new import new as", ["room/_new.py is imported now"]),
    ],
)
def test_what_makes_evidence_stale(planted, rewrite, name, old, new, said):
    code = _code.digests({"claim.py", "room/_method.py"})
    rewrite(planted / name, old, new)
    assert _code.changes(code) == said


def test_a_file_that_is_gone_makes_evidence_stale(planted):
    code = _code.digests({"aside.py"})
    (planted / "aside.py").unlink()
    assert _code.changes(code) == ["aside.py is gone"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = [1, 2]", "x = [[1], 2]"),
        ("f(a, b)", "f((a, b))"),
        ("f(a=b)", "f(b=a)"),
        ("f(*a)", "f(**a)"),
        ("x = ''", "x = None"),
        ("x = []", "x = ()"),
        ("x = ['']", "x = []"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("x = f'{a:>3}'", "x = f'{a:>4}'"),
        ("x = 1", "x = 1.0"),
        ("x = 'a' 'b'", "x = 'a', 'b'"),
        ("a = b - c - d", "a = b - (c - d)"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("def f(a, *, b): ...", "def f(a, b): ..."),
        ("def f(): return", "def f(): yield"),
        ("class A:\n    x = 1", "class A:\n    x: int = 1"),
        ("from a import b", "from .a import b"),
    ],
)
def test_different_code_has_different_digests(one, other):
    assert _code._digest(ast.parse(one)) != _code._digest(ast.parse(other))


def test_how_outcomes_look_is_no_part_of_the_evidence():
    ran = {"papers/_records.py", "papers/_shown.py"}
    taken = _code.digests(ran)
    assert {"papers/_records.py", "papers/_contrast.py"} <= set(taken)
    assert (_code.SOURCE / "papers/_shown.py").is_file() and "papers/_shown.py" not in taken
    # The check's own words are rendered while a paper's checks are made, and records read it through their imports.
    assert _code.changes(taken) == []
