"""The page lists what is tested, and every named attack is."""

from tests.attacks.catalogue import IDS, PAGE, declared, page


def test_every_named_attack_has_a_test() -> None:
    """None of the 79 is only written about."""
    assert [one.id for one in declared()] == list(IDS)
    assert len(IDS) == 79


def test_every_test_says_what_it_does() -> None:
    """A docstring is the row of the page."""
    assert all(one.says and one.answer for one in declared())


def test_the_page_is_up_to_date() -> None:
    """Written anew with ``python -m tests.attacks.catalogue``."""
    assert PAGE.read_text() == page()
