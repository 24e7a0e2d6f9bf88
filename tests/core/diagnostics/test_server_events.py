from puna import events
from puna.diagnostics.server_events import OVERHEAD, ServerEvents

LOADED = events.ModelLoaded(model="m", backend="b", seconds=1.0)
FAILED = events.ModelLoadFailed(model="m", backend="b", reason="LOAD_FAILED", error="x" * OVERHEAD)
DIED = events.HostDied(model="m", status="SIGKILL")


def test_the_last_events_are_kept_until_the_end():
    kept = ServerEvents(2, 10 * OVERHEAD)
    for each in (LOADED, FAILED, DIED):
        events.publish(each)
    found = kept.items.after(0)[0]
    assert [(number, event) for number, (_, event) in found] == [(2, FAILED), (3, DIED)]
    assert found[0][1][0] <= found[1][1][0]
    kept.close()
    events.publish(LOADED)
    assert len(kept.items.after(0)[0]) == 2
    assert not events.wanted(events.HostDied)


def test_long_texts_of_errors_are_bounded():
    kept = ServerEvents(100, 3 * OVERHEAD)
    for _ in range(5):
        events.publish(FAILED)
    kept.close()
    assert len(kept.items.after(0)[0]) == 1
