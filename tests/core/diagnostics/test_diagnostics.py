import pytest

from puna import events
from puna.diagnostics.diagnostics import Diagnostics, policy
from puna.settings import Settings


@pytest.mark.parametrize(
    ("content", "prompts", "answers"),
    [("all", True, True), ("prompts", True, False), ("answers", False, True), ("none", False, False)],
)
def test_the_settings_say_what_records_keep(content, prompts, answers):
    found = policy(Settings(records=True, records_content=content))
    assert (found.prompts, found.answers) == (prompts, answers)


async def test_without_the_setting_nothing_is_kept_and_nothing_is_listened_to():
    assert policy(Settings()) is None
    diagnostics = Diagnostics()
    async with diagnostics.keeping(list):
        assert diagnostics.requests is None
        assert not events.wanted(events.RequestBegan)


async def test_records_are_kept_as_long_as_the_block_lasts(tmp_path):
    file = tmp_path / "patterns"
    file.write_text("x")
    diagnostics = Diagnostics(policy(Settings(records=True, records_redaction=file)))
    async with diagnostics.keeping(list):
        assert diagnostics.requests is not None
        assert events.wanted(events.RequestBegan)
    assert not events.wanted(events.RequestBegan)
    file.write_text("(")
    with pytest.raises(OSError, match="patterns:1"):
        policy(Settings(records=True, records_redaction=file))
