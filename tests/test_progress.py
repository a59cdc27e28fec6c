"""The bar: for terminals only, and never in the way of the output."""

import io
import sys

import pytest

from sklearn_lmm import _progress
from sklearn_lmm._progress import progress


class Stream(io.StringIO):
    """What is written to a terminal, or to a file."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def shown(monkeypatch):
    """Return a function: what a pass over three items writes to a stream."""
    monkeypatch.setattr(_progress, "SILENT_SECONDS", 0.0)

    def show(terminal, **options):
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        items = options.pop("items", [1, 2, 3])
        assert list(progress(items, **options)) == [1, 2, 3]
        return stream.getvalue()

    return show


def test_a_terminal_shows_description_and_count(shown, capsys):
    text = shown(terminal=True, description="batches")
    assert "batches" in text
    assert "3/3" in text
    assert capsys.readouterr().out == ""


def test_a_total_is_shown_where_the_items_have_no_length(shown):
    assert "3/4" in shown(terminal=True, items=iter([1, 2, 3]), total=4)


def test_a_short_pass_shows_nothing(shown, monkeypatch):
    monkeypatch.setattr(_progress, "SILENT_SECONDS", 60.0)
    assert shown(terminal=True).strip() == ""


def test_a_file_shows_nothing(shown):
    assert shown(terminal=False) == ""


def test_without_tqdm_the_items_pass(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert shown(terminal=True) == ""


def test_without_any_standard_error_the_items_pass(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress([1, 2, 3])) == [1, 2, 3]
