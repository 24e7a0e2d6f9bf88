from puna.traceback_summary import summarize


def fail(prompt):
    raise ValueError(f"cannot read {prompt}")


def test_an_exception_is_named_by_its_kind_and_place_and_not_its_text():
    prompt = " ".join(("a", "secret", "prompt"))  # the summary shows lines of source code, as tracebacks do
    try:
        fail(prompt)
    except ValueError as error:
        text = summarize(error)
    assert text.startswith("ValueError\n")
    assert "in fail" in text
    assert prompt not in text
