import pytest

from puna_client.v1 import batch_pb2
from puna_rest.translate.openai import batches

ORIGIN = {"endpoint": "/v1/completions", "input_file_id": "file-1"}
HEX = "0123456789abcdef" * 2


def batch(state="RUNNING", *, ended=False, **fields):
    made = batch_pb2.Batch(
        id=f"batch_{HEX}", state=f"BATCH_STATE_{state}", client_data=batches.origin(*ORIGIN.values())
    )
    made.MergeFrom(batch_pb2.Batch(**fields))
    if ended:
        made.end_time.FromSeconds(7)
    return made


@pytest.mark.parametrize(
    ("state", "status", "time"),
    [
        ("DONE", "completed", "completed_at"),
        ("CANCELLED", "cancelled", "cancelled_at"),
        ("EXPIRED", "expired", "expired_at"),
        ("REVOKED", "failed", "failed_at"),
    ],
)
def test_the_end_has_a_status_and_a_time(state, status, time):
    found = batches.batch_object(batch(state, ended=True), ORIGIN)
    assert (found["status"], found[time]) == (status, 7)
    others = {"completed_at", "cancelled_at", "expired_at", "failed_at"} - {time}
    assert [found[each] for each in others] == [None] * 3


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "UNSPECIFIED"])
def test_a_batch_that_has_not_ended_is_in_progress(state):
    found = batches.batch_object(batch(state, answer_bytes=5, error_bytes=5), ORIGIN)
    assert (found["status"], found["output_file_id"], found["error_file_id"]) == ("in_progress", None, None)


def test_result_files_exist_where_there_are_results():
    assert [each.id for each in batches.result_files(batch(ended=True, error_bytes=1))] == [f"file-errors-{HEX}"]
    assert [each.id for each in batches.result_files(batch(ended=True, answer_bytes=1))] == [f"file-output-{HEX}"]


def test_the_id_of_a_result_file_leads_back_to_it():
    for file in (batches.ResultFile(f"batch_{HEX}", False), batches.ResultFile(f"batch_{HEX}", True)):
        assert batches.result_file(file.id) == file


@pytest.mark.parametrize(
    "id_", ["", "file-1", "file-output-", f"file-output-{HEX}\n", "file-output-../x", "file-output-٣"]
)
def test_other_ids_are_those_of_other_files(id_):
    assert batches.result_file(id_) is None


def test_the_origin_comes_back():
    assert batches.origin_of(batch()) == ORIGIN


@pytest.mark.parametrize("data", [b"", b"\0", b"{}", b"[]", b'{"endpoint": 5}', b"null"])
def test_data_of_other_clients_is_no_origin(data):
    assert batches.origin_of(batch_pb2.Batch(client_data=data)) is None


def test_an_empty_page_has_no_ids():
    assert batches.page([], more=False) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
