"""What ``--help`` says of defaults that are no plain values."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from nablax.app._cli import app

COMMANDS = {
    ("learn",): ["runs/NAME", "from the data", "ten seconds' worth", "1024", "NA, NaN, null", "identifier or omit"],
    ("sample",): ["print", "the run's"],
    ("score",): ["UTF-8, or the training file's"],
    ("complete",): ["their centre, once"],
    ("check",): ["those held out"],
    ("papers", "run"): ["1, and 3 with --record"],
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_default_is_shown(command):
    """Text in square brackets would be taken for markup, and vanish."""
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output
    for words in COMMANDS[command]:
        assert words in shown
    group = get_command(app)
    for name in command:
        group = group.commands[name]
    for parameter in group.params:
        assert "[" not in (getattr(parameter, "help", None) or ""), parameter.name
