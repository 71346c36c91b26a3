"""What tests of pages share."""

import pytest

from maskcls.reports import page


@pytest.fixture
def without_plots(monkeypatch):
    """For pages whose plots nobody looks at: to draw them takes most of a page's time."""
    monkeypatch.setattr(
        page, "plot", lambda figure, alt, caption="": page.Picture("data:,", alt, caption)
    )
