"""M: mix and match, among metadata files; among the parts of a release it is tried with their contents."""

import pytest

from protocol.errors import ErrorCode
from tests.attacks.arena import Arena
from tests.attacks.books import RELEASES, Books
from tests.attacks.catalogue import attack

pytestmark = pytest.mark.asyncio(loop_scope="module")


@attack("M1", "E_ROLLBACK_METADATA")
async def test_m1_an_old_list_under_the_new_name(ground: Arena) -> None:
    """The broker hands out the old list of releases, genuine and signed, under the name of the new one."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        await books.publish({f"{books.releases.version}.{RELEASES}.json": ground.metadata()[RELEASES]})
        await ground.fails(victim, ErrorCode.ROLLBACK_METADATA)
        assert victim.believes[RELEASES] == books.releases.version - 1


@attack("M2", "E_MIX")
async def test_m2_another_list_of_the_same_version(ground: Arena) -> None:
    """Of two lists of one version, both signed by the release keys, the one comes that the snapshot does not hash."""
    async with ground.victim() as victim:
        books = Books(ground)
        books.bump()
        name = f"{books.releases.version}.{RELEASES}.json"
        meant = books.files()[name]
        books.releases.targets.clear()
        other = books.files()[name]
        books.hashed[RELEASES] = meant
        await books.publish({name: other})
        await ground.fails(victim, ErrorCode.MIX)
        assert victim.believes[RELEASES] == books.releases.version - 1
        await books.publish({name: meant})
        await victim.believing(RELEASES, books.releases.version)
