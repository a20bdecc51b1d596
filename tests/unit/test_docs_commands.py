"""The page of commands is what the commands' help says."""

import importlib.util

import click
import pytest

from tasktrail import docs
from tasktrail.cli import COMMANDS, cli

THERE = [name for name, place in COMMANDS.items() if importlib.util.find_spec(place.module)]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def test_page_is_current() -> None:
    assert docs.PAGE.read_text() == docs.page(), "run `python -m tasktrail.docs`"


def test_check_tells_a_page_that_is_not_current() -> None:
    assert docs.main(["--check"]) == 0


@pytest.mark.parametrize("name", THERE)
def test_help_of_every_command_has_an_example_that_names_it(name: str) -> None:
    text = command(name).get_help(click.Context(command(name), info_name=name))
    assert "Examples:" in text and f"tasktrail {name}" in text


@pytest.mark.parametrize("name", ["history", "tree", "ps", "find", "watch", "sql", "status", "doctor", "config", "decode"])
def test_help_ends_in_examples_after_the_exit_codes(name: str) -> None:
    text = command(name).get_help(click.Context(command(name), info_name=name))
    codes, examples = text.index("Exit codes:"), text.index("Examples:")
    assert codes < examples and f"tasktrail {name}" in text[examples:]
    assert all(line.startswith("  ") for line in text[examples:].splitlines()[1:])
