"""The counts and durations of an answer."""

import time
from dataclasses import dataclass, field

from puna.backend import Finish
from puna.serving.answers import Timings, Usage


@dataclass(slots=True)
class Clock:
    """Times one request from its arrival."""

    start_ns: int
    """Arrival of the request in nanoseconds since 1970. Only the wall clock compares across processes."""
    load_ns: int = field(default=0, init=False)

    def model_ready(self) -> None:
        """Record that the request has a loaded model."""
        self.load_ns = max(time.time_ns() - self.start_ns, 1)

    def timings(self, finish: Finish | None = None, queue_ns: int = 0) -> Timings:
        """Return the durations up to now. `finish` has the durations of the sequence, if one ran."""
        return Timings(
            # The wall clock can step back, and a duration of zero would be left out of the answer's JSON.
            total_ns=max(time.time_ns() - self.start_ns, 1),
            load_ns=self.load_ns,
            prompt_eval_ns=finish.prompt_eval_ns if finish and finish.prompt_tokens else 0,
            eval_ns=finish.eval_ns if finish else 0,
            queue_ns=queue_ns,
        )


def usage(finish: Finish, truncated: int = 0) -> Usage:
    """Return the token counts of a sequence."""
    return Usage(
        prompt_tokens=finish.prompt_tokens,
        cached_prompt_tokens=finish.cached_prompt_tokens,
        output_tokens=finish.output_tokens,
        truncated_tokens=truncated,
        draft_tokens=finish.draft_tokens,
        accepted_draft_tokens=finish.accepted_draft_tokens,
        thinking_tokens=finish.thinking_tokens,
    )
