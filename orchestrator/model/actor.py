"""Who acts, as events name it: the engine, a device, the admin, or whoever has a token of that name."""

ADMIN = "admin"
"""The actor of the home's own token, the only one that makes and revokes others."""
RESERVED = frozenset({ADMIN, "engine", "device", "operator"})
"""Actors that no token may pose as."""
TOKEN_PREFIX = "flt_"  # noqa: S105 - the part of it that everybody may know
"""So that a token is known for one where it turns up, in a text or in a search for secrets."""


def looks_like_token(text: str) -> bool:
    """Whether somebody gave a token where a name is expected: such a text is never said back."""
    return text.lower().startswith(TOKEN_PREFIX)
