import pytest

from puna.messages import Message
from puna.sandbox import wire
from puna.sandbox.wire import HEADER
from puna.sandbox.worker import Worker

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.fixture
def ask():
    """Asks a worker that runs in this process, without its confinement."""
    worker = Worker(1000)

    def ask(kind, template, **members):
        request = {"ask": kind, "key": repr(template), "template": template, **members}
        return wire.unpack(worker.answer(request)[HEADER.size :])

    ask.worker = worker
    return ask


def go(ask, template, content="hi", **members):
    messages = wire.messages_out([Message(role="user", content=content)])
    return ask("go", template, messages=messages, tools=[], think=None, **members)


def turn(ask, source, content="hi", *, reads=False):
    messages = wire.messages_out([Message(role="user", content=content)])
    template = [source, "", "<s>", "</s>", False, False]
    return ask("turn", template, messages=messages, tools=[], think=None, reads=reads)


def test_templates_are_rendered(ask):
    assert go(ask, "{{ range .Messages }}<{{ .Content }}>{{ end }}") == {"answer": "<hi>"}
    assert turn(ask, CHAT) == {"answer": ["[user]hi", ""]}
    assert ask("suffix", "{{ .Prompt }}|{{ .Suffix }}", texts=["a", "b"], think=None) == {"answer": "a|b"}


def test_a_template_is_sent_once(ask):
    go(ask, "{{ .Prompt }}")
    request = {"ask": "facts", "key": repr("{{ .Prompt }}")}
    assert "answer" in wire.unpack(ask.worker.answer(dict(request))[HEADER.size :])
    unknown = wire.unpack(ask.worker.answer({"ask": "facts", "key": "never sent"})[HEADER.size :])
    assert "failed" in unknown


def test_too_much_text_is_an_answer_of_its_own(ask):
    assert go(ask, "{{ range .Messages }}{{ .Content }}{{ end }}", "x" * 1001) == {"exceeded": "output"}
    assert go(ask, "{{ range .Messages }}{{ .Content }}{{ end }}", "é" * 501) == {"exceeded": "output"}


def test_refusals_and_errors_differ(ask):
    assert "only users" in turn(ask, "{{ raise_exception('only users') }}")["refused"]
    assert "failed" in turn(ask, "{% for %}")
    assert "failed" in go(ask, "{{ .Prompt")


def test_running_out_of_memory_spends_the_worker(ask, monkeypatch):
    def exhaust(request):
        raise MemoryError

    monkeypatch.setattr(ask.worker, "_facts", exhaust)
    assert ask("facts", "x") == {"exceeded": "memory"}
    assert ask.worker.out_of_memory
