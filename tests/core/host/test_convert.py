import pytest

from puna import backend as contract
from puna.backend.v1 import backend_pb2 as wire
from puna.errors import BackendFailedError
from puna.host import convert

SPECS = [
    contract.ModelSpec(path="/m"),
    contract.ModelSpec(
        path="/m",
        adapter_paths=("/a", "/b"),
        projector_paths=("/p",),
        draft_path="/d",
        context_length=8,
        parallel=0,
        batch_size=3,
        gpu_layers=0,
        main_gpu=0,
        use_mmap=False,
        threads=2,
        draft_tokens=5,
        flash_attention="on",
        kv_cache_type="q8_0",
        backend_options={"x": [1, {"y": None}]},
        memory_bytes=2**40,
    ),
]
SEQUENCES = [
    contract.SequenceRequest(prompt="", sampling=contract.Sampling(temperature=0.5, top_p=1.0)),
    contract.SequenceRequest(prompt=(), sampling=contract.Sampling(temperature=0.5, top_p=1.0)),
    contract.SequenceRequest(
        prompt=(3, 1, 2),
        media=(b"\0\xff", b""),
        sampling=contract.Sampling(
            temperature=0.0,
            top_k=0,
            top_p=0.25,
            min_p=0.5,
            typical_p=0.75,
            repeat_last_n=-1,
            repeat_penalty=1.5,
            presence_penalty=-2.0,
            frequency_penalty=2.0,
            seed=2**32 - 1,
            logit_bias={0: -100.0, 5: 1.0},
        ),
        max_tokens=0,
        stop=("a", "\n"),
        constraint=contract.Constraint("json_schema", "{}"),
        top_logprobs=0,
        keep_tokens=-1,
        shift=False,
        preserved_tokens=("<tool>",),
        cache_salt="s",
        priority=-3,
        score_from=1,
    ),
    contract.SequenceRequest(
        prompt="",
        sampling=contract.Sampling(temperature=0.5, top_p=1.0),
        thinking_budget=contract.ThinkingBudget(
            max_tokens=0,
            markers=contract.ThinkingMarkers(
                starts=("<think>",), open=True, again=True, ends=("</think>", "<tool_call>"), closings=("a", "b")
            ),
        ),
    ),
]
EVENTS = [
    contract.Prefill(1, 2),
    contract.PromptLogprobs((contract.TokenLogprob(b"a", 4, -1.0, (contract.TokenLogprob(b"b", 5, -0.5),)),)),
    contract.TextDelta("né"),
    contract.TextDelta("né", (), 620),
    contract.TextDelta("", (contract.TokenLogprob(b"\xff", 3, -0.5, (contract.TokenLogprob(b"a", 4, -1.0),)),)),
    contract.Finish(reason="stop", stop_sequence="x", prompt_tokens=1, cached_prompt_tokens=2, output_tokens=3),
    contract.Finish(reason="length", prompt_eval_ns=2**40, eval_ns=5, draft_tokens=6, accepted_draft_tokens=7),
    contract.Finish(reason="stop", thinking_tokens=8),
]
ERRORS = [
    contract.PromptTooLongError(9, 4),
    contract.InvalidRequestError("bad"),
    contract.UnsupportedError("cannot"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_comes_back(spec):
    message = convert.spec_to_wire("parrot", spec)
    assert message.backend == "parrot"
    assert convert.spec_from_wire(wire.LoadRequest.FromString(message.SerializeToString())) == spec


def test_options_that_are_no_object_are_refused():
    with pytest.raises(ValueError, match="must be a JSON object"):
        convert.spec_from_wire(wire.LoadRequest(backend_options_json="[]"))


def test_facts_come_back():
    facts = contract.ModelFacts(
        context_length=8,
        parallel=2,
        size_bytes=2**40,
        vram_bytes=1,
        adds_bos=True,
        adds_eos=True,
        bos_id=1,
        eos_text="</s>",
        embedding_length=4,
        embedding_tokens=64,
        generates=False,
        vision=True,
        audio=True,
    )
    assert convert.facts_from_wire(convert.facts_to_wire(facts)) == facts
    plain = contract.ModelFacts(context_length=1)
    assert convert.facts_from_wire(convert.facts_to_wire(plain)) == plain


@pytest.mark.parametrize("request_", SEQUENCES)
def test_a_request_comes_back(request_):
    message = convert.sequence_to_wire(request_)
    back = convert.sequence_from_wire(wire.StartSequence.FromString(message.SerializeToString()))
    assert back == request_


def test_numbers_keep_the_precision_that_engines_have():
    back = convert.sequence_from_wire(convert.sequence_to_wire(contract.SequenceRequest(prompt="")))
    assert back.sampling.temperature == pytest.approx(0.8, rel=1e-7)


@pytest.mark.parametrize("kind", ["json_schema", "gbnf", "lark", "regex"])
def test_every_constraint_comes_back(kind):
    request = contract.SequenceRequest(
        prompt="", sampling=contract.Sampling(temperature=1, top_p=1), constraint=contract.Constraint(kind, "")
    )
    assert convert.sequence_from_wire(convert.sequence_to_wire(request)) == request


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back(event):
    message = wire.RunResponse()
    convert.add_event(message, 5, event)
    (found,) = wire.RunResponse.FromString(message.SerializeToString()).events
    assert found.sequence_id == 5
    assert convert.event_from_wire(found) == event


@pytest.mark.parametrize(
    ("event", "error", "text"),
    [
        (contract.TextDelta("\ud800"), ValueError, "lone surrogate"),
        (contract.TextDelta(b"a"), TypeError, "its text is no str"),
        ("a", TypeError, "it is no event"),
        (contract.Prefill(-1, 2**40), TypeError, "yielded a Prefill that the contract does not allow"),
    ],
)
def test_an_event_that_is_refused_leaves_the_message_as_it_was(event, error, text):
    message = wire.RunResponse()
    convert.add_event(message, 5, contract.TextDelta("a"))
    before = message.SerializeToString()
    with pytest.raises(error, match=text):
        convert.add_event(message, 6, event)
    assert message.SerializeToString() == before


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_contracts_errors_come_back_as_themselves(error):
    back = convert.error_from_wire(convert.error_to_wire(error))
    assert (type(back), back.args, vars(back)) == (type(error), error.args, vars(error))


def test_any_other_error_is_the_backends_fault():
    with pytest.raises(BackendFailedError, match="KeyError"):
        convert.event_from_wire(wire.SequenceEvent(failure=convert.error_to_wire(KeyError())))


@pytest.mark.parametrize("text", ["some text", "", (), (1, 2)])
def test_inputs_come_back(text):
    assert convert.input_from_wire(convert.input_to_wire(text)) == text


def test_vectors_travel_packed_and_little_endian():
    message = convert.embedding_to_wire(contract.Embedding([1.0, -2.5], 3))
    assert message.values == b"\x00\x00\x80\x3f\x00\x00\x20\xc0"
    back = convert.embedding_from_wire(message)
    assert (list(back.values), back.token_count) == ([1.0, -2.5], 3)
