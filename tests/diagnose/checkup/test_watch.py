"""What a watch does with what it finds, and a check-up as numbers by name."""

import csv
import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import FaultFound, Finding, checkup, watch
from nablax.diagnose._checkup import _watch
from nablax.diagnose._checkup._log import log_to

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (32, 3))
SAFE, HIGH = optax.sgd(0.05), optax.sgd(50.0)


def loss(params, batch):
    return jnp.mean((batch @ params - 1.0) ** 2)


def record(optimizer=SAFE, **options):
    return checkup(loss, jnp.zeros(3), X, optimizer=optimizer, key=KEY, **options)


@pytest.fixture(scope="module")
def safe():
    return record()


def test_metrics_are_the_numbers_of_the_record(safe):
    numbers = safe.metrics()
    assert all(type(name) is str and type(value) is float for name, value in numbers.items())
    assert numbers["loss"] == float(safe.loss)
    assert numbers["sharpness/ratio"] == float(safe.sharpness.ratio.value)
    assert numbers["sharpness/ratio_error"] == float(safe.sharpness.ratio.standard_error)
    assert numbers["noise/preconditioned"] == float(safe.noise.preconditioned.value)
    assert numbers["sharpness/rule/nesterov"] == 0.0
    levels = [finding.level for finding in safe.findings]
    assert numbers["findings/notes"] == levels.count("note") and numbers["findings/faults"] == levels.count("fault")


def test_names_depend_on_the_arguments_and_not_on_what_is_found(safe):
    assert list(safe.metrics()) == list(record(HIGH).metrics())
    # A model of the user's own, whose counts are no measurements.
    model = eqx.nn.Linear(3, 1, key=KEY)
    of_module = checkup(lambda m, x: jnp.mean((jax.vmap(m)(x) - 1.0) ** 2), model, X, optimizer=SAFE, key=KEY).metrics()
    assert set(of_module) == set(safe.metrics())


def test_json_is_whole_and_has_null_for_what_is_not_known(safe):
    whole = json.loads(safe.to_json(), parse_constant=lambda name: pytest.fail(name))
    numbers = safe.metrics()
    assert whole["metrics"].keys() == numbers.keys()
    for name, value in numbers.items():
        assert whole["metrics"][name] == (value if math.isfinite(value) else None)
    assert [f["text"] for f in whole["findings"]] == [f.text for f in safe.findings]
    assert whole["notes"] == list(safe.notes)


def test_a_fault_warns_raises_or_calls():
    seen = []

    def note(number, record):
        seen.append((number, record))

    for on_fault in (None, "warn", "raise", note):
        watching = watch(loss, every=2, key=KEY, optimizer=HIGH, on_fault=on_fault)
        calls = [lambda w=watching: w.step(jnp.zeros(3), X) for _ in range(2)]
        if on_fault == "warn":
            with pytest.warns(UserWarning, match="step 0: "):
                calls[0]()
        elif on_fault == "raise":
            with pytest.raises(FaultFound, match="step 0: ") as raised:
                calls[0]()
            assert raised.value.number == 0 and raised.value.record.findings[0].level == "fault"
        else:
            calls[0]()
        # What was found is kept whatever was done, and nothing is said of the steps between.
        assert len(watching.records) == 1 and calls[1]() is None
    assert [number for number, _ in seen] == [0]
    quiet = watch(loss, key=KEY, optimizer=SAFE, on_fault="raise")
    assert quiet.step(jnp.zeros(3), X) is not None
    for wrong in ("stop", 3, True):
        with pytest.raises(ValueError, match="on_fault="):
            watch(loss, key=KEY, on_fault=wrong)


def test_a_fault_of_the_run_is_told_though_each_step_is_safe(monkeypatch):
    stuck = Finding("fault", "no progress", "Nothing has been learned.")
    monkeypatch.setattr(_watch, "trends", lambda steps, records: [stuck] if len(records) > 1 else [])
    seen = []
    for on_fault in ("warn", "raise", lambda number, record: seen.append((number, record.safe))):
        watching = watch(loss, every=1, key=KEY, optimizer=SAFE, on_fault=on_fault)
        assert watching.step(jnp.zeros(3), X).safe
        if on_fault == "warn":
            with pytest.warns(UserWarning, match="step 1: Nothing has been learned"):
                watching.step(jnp.zeros(3), X)
        elif on_fault == "raise":
            with pytest.raises(FaultFound, match="step 1: Nothing has been learned") as raised:
                watching.step(jnp.zeros(3), X)
            assert raised.value.finding == stuck
        else:
            watching.step(jnp.zeros(3), X)
    assert seen == [(1, True)]


class Board:
    def __init__(self):
        self.lines = []

    def add_scalar(self, name, value, step):
        self.lines.append((step, name, value))


class Run:
    def __init__(self):
        self.lines = []

    def log(self, numbers, step):
        self.lines += [(step, name, value) for name, value in numbers.items()]


def test_numbers_go_to_every_kind_of_log(tmp_path):
    board, run, called, path = Board(), Run(), [], tmp_path / "checkups.csv"
    watching = watch(loss, every=5, key=KEY, optimizer=SAFE, rows=0)
    watching.step(jnp.zeros(3), X, number=0)
    # A log may come later than the first check-up.
    watching.log(board).log(run).log(lambda step, numbers: called.append((step, numbers))).log(path)
    watching.step(jnp.ones(3), X, number=5)
    right = {number: record.metrics() for number, record in watching.records}
    lines = [(step, name, value) for step, numbers in right.items() for name, value in numbers.items()]
    for log in (board.lines, run.lines):
        assert [line[:2] for line in log] == [line[:2] for line in lines]
        np.testing.assert_array_equal([line[2] for line in log], [line[2] for line in lines])
    assert [step for step, _ in called] == [0, 5]
    table = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row["step"] for row in table] == ["0", "5"]
    for row, numbers in zip(table, right.values(), strict=True):
        np.testing.assert_array_equal([float(row[name]) for name in numbers], list(numbers.values()))
    for wrong in (3, None, object()):
        with pytest.raises(ValueError, match="a path, a writer with add_scalar or log"):
            watching.log(wrong)


def test_a_run_that_is_resumed_keeps_the_lines_of_before(tmp_path):
    path = tmp_path / "checkups.csv"

    def steps(numbers):
        log = log_to(path)
        for number in numbers:
            log(number, {"loss": 1.0 / (1 + number)})
        return [line.split(",")[0] for line in path.read_text(encoding="utf-8").split()]

    assert steps([0, 200, 400]) == ["step", "0", "200", "400"]
    assert steps([400, 600]) == ["step", "0", "200", "400", "600"]  # the step that was made again stands once
    assert steps([0]) == ["step", "0"]  # another run in its place
    path.write_text("name,age\na,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a CSV file of check-ups"):
        log_to(path)
    assert path.read_text(encoding="utf-8") == "name,age\na,3\n"
