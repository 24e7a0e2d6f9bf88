import pytest

from puna.go.template.printf import sprintf
from puna.go.template.values import MISSING, Boxed


@pytest.mark.parametrize(
    ("form", "arguments", "out"),
    [
        ("no verb", (), "no verb"),
        ("100%%", (), "100%"),
        ("%d %s", (1, "a"), "1 a"),
        ("%d", (Boxed(1),), "1"),
        ("%*d|%-*d|", (5, 42, 4, 7), "   42|7   |"),
        ("%*d|", (-4, 7), "7   |"),
        ("%.*f", (1, 2.55), "2.5"),
        ("%.*d", (-1, 3), "3"),
        ("%[2]s %[1]s", ("a", "b"), "b a"),
        ("%[2]*[1]d", (7, 3), "  7"),
        ("%[1]d %d", (1, 2), "1 2"),
        ("%+d % d %x %#x %05d %-5d|", (1, 2, 255, 255, 3, 4), "+1  2 ff 0xff 00003 4    |"),
    ],
)
def test_formats(form, arguments, out):
    assert sprintf(form, arguments) == out


@pytest.mark.parametrize(
    ("form", "arguments", "notice"),
    [
        ("%d", (), "%!d(MISSING)"),
        ("%d", ("x",), "%!d(string=x)"),
        ("%s", (3,), "%!s(int=3)"),
        ("%t", (1.5,), "%!t(float64=1.5)"),
        ("%s", (MISSING,), "%!s(<nil>)"),
        ("%z", (1,), "%!z(int=1)"),
        ("%w", ("e",), "%!w(string=e)"),
        ("%", (), "%!(NOVERB)"),
        ("%5", (), "%!(NOVERB)"),
        ("a", (1, "b", None), "a%!(EXTRA int=1, string=b, <nil>)"),
        ("%[3]d", (1,), "%!d(BADINDEX)"),
        ("%[x]d", (1,), "%!d(BADINDEX)"),
        ("%*d", ("w", 1), "%!(BADWIDTH)1"),
        ("%.*d", (10**7, 1), "%!(BADPREC)1"),
    ],
)
def test_wrong_verbs_and_arguments_leave_a_notice_and_no_error(form, arguments, notice):
    assert sprintf(form, arguments) == notice


def test_a_width_beyond_a_million_ends_the_format():
    assert sprintf("%99999999d rest", (1,)) == "%!(NOVERB)%!(EXTRA int=1)"
