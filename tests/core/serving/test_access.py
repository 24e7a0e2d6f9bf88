import pytest

from puna import errors
from puna.messages import Think
from puna.model_name import ModelName
from puna.serving.access import check_capabilities, check_logprobs, thinking_of
from puna.serving.requests import RequestOptions


async def find(serving, name, **how):
    return await serving.access.find(name, **how)


async def test_a_model_is_read_once_until_its_manifest_changes(serving):
    first = await find(serving, "plain")
    assert (await find(serving, "plain:latest")).model is first.model
    assert (await find(serving, "talker")).model is not first.model


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", errors.ModelRequiredError),
        ("a b", errors.InvalidModelNameError),
        ("nosuch", errors.ModelNotFoundError),
        ("plain:cloud", errors.CloudDisabledError),
    ],
)
async def test_what_is_no_model(serving, name, error):
    with pytest.raises(error):
        await find(serving, name)


async def test_a_method_chooses_its_own_words(serving):
    with pytest.raises(errors.NotFoundError, match="mine"):
        await find(serving, "nosuch", unknown=lambda _: errors.NotFoundError("mine"))
    with pytest.raises(errors.NotFoundError, match="none"):
        await find(serving, "", missing=lambda: errors.NotFoundError("none"))


async def test_a_model_thinks_unless_told_otherwise(serving):
    thinker, plain = await find(serving, "thinker"), await find(serving, "plain")
    off = RequestOptions(think=Think(on=False))
    on = RequestOptions(think=Think(on=True))
    assert thinking_of(thinker, RequestOptions()) == Think(on=True)
    assert thinking_of(thinker, off) == Think(on=False)
    assert thinking_of(plain, RequestOptions()) is None
    with pytest.raises(errors.CapabilityMissingError, match='"plain" does not support thinking'):
        thinking_of(plain, on)
    assert thinking_of(plain, RequestOptions(think=Think(on=True), think_if_possible=True)) is None


async def test_capabilities_are_checked_in_order(serving):
    with pytest.raises(errors.CapabilityMissingError, match='"embedder" does not support chat'):
        check_capabilities(await find(serving, "embedder"), "chat", ["tools"])
    with pytest.raises(errors.CapabilityMissingError, match="does not support tools"):
        check_capabilities(await find(serving, "plain"), "chat", ["tools"])
    check_capabilities(await find(serving, "tools"), "chat", ["tools"])


@pytest.mark.parametrize("number", [-1, 21])
def test_the_number_of_alternatives_is_bounded(number):
    with pytest.raises(errors.InvalidRequestError, match="between 0 and 20"):
        check_logprobs(RequestOptions(top_logprobs=number))


async def test_unloading_says_whether_there_was_anything(serving, stocked):
    assert not await serving.access.unload(stocked.get(ModelName.parse("plain")))
