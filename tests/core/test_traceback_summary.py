from puna.traceback_summary import MAX_LINE, summarize


def fail(prompt):
    raise ValueError(f"cannot read {prompt}")


def summary_of(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return summarize(error)


def test_an_exception_is_named_by_its_kind_and_place_and_not_its_text():
    prompt = " ".join(("a", "secret", "prompt"))  # the summary shows lines of source code, as tracebacks do
    text = summary_of(fail, prompt)
    assert text.startswith("ValueError\n")
    assert "in fail" in text
    assert prompt not in text


def test_causes_and_members_of_groups_are_shown():
    def chain():
        try:
            fail("a")
        except ValueError as error:
            raise OSError from error

    def group():
        raise BaseExceptionGroup("all of them", [KeyError("a"), KeyboardInterrupt()])

    assert "\ncaused by ValueError\n" in summary_of(chain)
    assert "in fail" in summary_of(chain)
    assert summary_of(group).endswith("a member of the group: KeyError\na member of the group: KeyboardInterrupt")


def test_a_summary_is_short_however_deep_the_exception_is():
    def even(depth):
        return odd(depth + 1)

    def odd(depth):
        return even(depth + 1)

    def circle():
        error = ValueError("a")
        other = ValueError("b")
        error.__cause__, other.__cause__ = other, error
        raise error

    assert len(summary_of(even, 0)) < 10_000
    assert summary_of(circle).count("ValueError") == 2
    assert max(map(len, summary_of(even, 0).splitlines())) <= MAX_LINE


class HiddenError(Exception):
    @property
    def __traceback__(self):
        raise KeyboardInterrupt

    @property
    def __cause__(self):
        raise KeyboardInterrupt

    def __bool__(self):
        raise KeyboardInterrupt


def test_attributes_that_raise_are_not_asked():
    def strike():
        raise HiddenError

    assert summary_of(strike).startswith("HiddenError\n")
