import math

import pytest

from puna.backend import Backend, Option
from puna.errors import InvalidRequestError, LoadFailedError
from puna.runtime.backend_options import of_operator, of_request


class Tuned(Backend):
    options = (
        Option(name="threads", kind=int, minimum=1, maximum=8, by_request=True),
        Option(name="scale", kind=float, minimum=0, maximum=2.5, by_request=True),
        Option(name="fast", kind=bool, by_request=True),
        Option(name="mode", kind=str, choices=("a", "b"), by_request=True),
        Option(name="library", kind=str),
    )

    async def load(self, spec, report, /):
        raise NotImplementedError


def test_what_is_declared_passes():
    given = {"threads": 8, "scale": 1, "fast": False, "mode": "b"}
    assert of_request("tuned", Tuned(), given) == {"threads": 8, "scale": 1.0, "fast": False, "mode": "b"}
    assert of_operator("tuned", Tuned(), {"library": "/lib/x.so"}) == {"library": "/lib/x.so"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nosuch": 1}, "backend 'tuned' has no option 'nosuch'"),
        ({"library": "/tmp/x.so"}, "option 'library' of backend 'tuned' is set in the server's configuration"),
        ({"library": None}, "option 'library' of backend 'tuned' is set in the server's configuration"),
        ({"threads": 0}, "option 'threads' of backend 'tuned' must be between 1 and 8"),
        ({"threads": 2**80}, "between 1 and 8"),
        ({"threads": 2.0}, "must be a whole number"),
        ({"threads": True}, "must be a whole number"),
        ({"threads": "2"}, "must be a whole number"),
        ({"threads": None}, "must be a whole number"),
        ({"scale": math.nan}, "between 0 and 2.5"),
        ({"scale": math.inf}, "between 0 and 2.5"),
        ({"scale": 2**2000}, "must be a number"),
        ({"fast": 1}, "must be true or false"),
        ({"mode": "/tmp/x.so"}, "must be one of 'a', 'b'"),
        ({"mode": ["a"]}, "must be a text"),
        ({"mode": {"a": {}}}, "must be a text"),
    ],
)
def test_what_is_not_declared_is_refused_by_name(given, words):
    with pytest.raises(InvalidRequestError, match=words):
        of_request("tuned", Tuned(), given)


@pytest.mark.parametrize("given", [{"nosuch": 1}, {"threads": 9}, {"library": 1}])
def test_the_operators_options_are_checked_too(given):
    with pytest.raises(LoadFailedError, match=r"table \[backends\.tuned\] is wrong: "):
        of_operator("tuned", Tuned(), given)


@pytest.mark.parametrize(
    "kind",
    [
        {"kind": str},
        {"kind": int},
        {"kind": int, "minimum": 0},
        {"kind": float, "maximum": 1},
        {"kind": float, "minimum": 0, "maximum": math.nan},
    ],
)
def test_an_option_without_bounds_is_never_one_for_requests(kind):
    Option(name="x", **kind)
    with pytest.raises(ValueError, match="option 'x' must be bounded"):
        Option(name="x", by_request=True, **kind)


@pytest.mark.parametrize(
    ("setting", "options"), [(None, {"kernels": True}), (False, {"kernels": False}), (True, {"kernels": True})]
)
def test_the_setting_for_kernels_wins_over_the_file(setting, options):
    class WithKernels(Backend):
        options = (Option(name="kernels", kind=bool),)

        async def load(self, spec, report, /):
            raise NotImplementedError

    assert of_operator("with", WithKernels(), {"kernels": True}, kernels=setting) == options


def test_backends_without_kernels_do_not_get_the_setting():
    assert of_operator("tuned", Tuned(), {"library": "x"}, kernels=False) == {"library": "x"}
