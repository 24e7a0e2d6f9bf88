import json

from puna.host import report
from puna.host.channel import ERROR, LONGEST_REPORT, PROGRESS


def failure(error):
    try:
        raise error
    except BaseException as raised:
        return raised


def test_an_error_is_one_line_without_the_text_of_the_exception(capfd):
    report.report_error("the backend failed", failure(ValueError("a \ud800 prompt")))
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    text = json.loads(line.removeprefix(ERROR))
    assert text.startswith("the backend failed: ValueError\n")
    assert "in failure" in text
    assert len(text) <= LONGEST_REPORT


def test_an_exception_that_fights_back_is_reported(capfd):
    class Meta(type):
        def __getattribute__(cls, name):
            raise KeyboardInterrupt

    class NamelessError(Exception, metaclass=Meta):
        pass

    report.report_error("the backend failed", failure(NamelessError()))
    assert json.loads(capfd.readouterr().err.removeprefix(ERROR)) == f"the backend failed: {report.UNDESCRIBED}"


def test_fractions_are_told_in_the_loop_while_it_runs(capfd):
    told = []
    progress = report.LoadProgress(lambda function: function(), told.append)
    for fraction in (0, 0.5, "0.75", 7, -1, float("nan"), None, "much"):
        progress.report(fraction)
    assert told == [0.0, 0.5, 0.75, 1.0, 0.0]
    assert capfd.readouterr().err == ""


def test_lines_replace_a_loop_that_is_blocked(capfd, monkeypatch):
    now, scheduled, told = [100.0], [], []
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    progress = report.LoadProgress(scheduled.append, told.append)
    for step in range(10):
        progress.report(step / 10)
        now[0] += 0.125  # without rounding
    lines = capfd.readouterr().err.splitlines()
    assert lines == [f"{PROGRESS}{fraction}" for fraction in ("0.2000", "0.4000", "0.6000", "0.8000")]
    assert len(scheduled) == 1
    scheduled[0]()
    assert told == [0.9]


def test_a_loop_that_has_ended_is_no_error():
    def ended(_):
        raise RuntimeError("the loop is closed")

    report.LoadProgress(ended, lambda _: None).report(0.5)
