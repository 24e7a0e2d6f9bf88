from puna.errors import PunaError
from puna_rest.errors import BY_REASON


def kinds(kind: type[PunaError]) -> list[type[PunaError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in kinds(child))]


def test_every_reason_of_the_core_has_a_status():
    assert {each.reason for each in kinds(PunaError)} - BY_REASON.keys() == set()
