"""Turns: tenants alternate, whoever leaves takes nothing, and nobody is forgotten."""

from __future__ import annotations

import asyncio

from vsrv.api.turns import Turns


def played(waiters: str, leaving: tuple[int, ...] = ()) -> str:
    """The order in which waiters, named by their tenants, get their turns; some leave before."""

    async def main() -> str:
        turns, order = Turns(), []

        async def one(index: int, tenant: str) -> None:
            await turns.take(tenant)
            order.append(f"{tenant}{index}")
            await asyncio.sleep(0)
            turns.give()

        await turns.take("first")
        tasks = [asyncio.create_task(one(index, tenant)) for index, tenant in enumerate(waiters)]
        await asyncio.sleep(0)
        for index in leaving:
            tasks[index].cancel()
        await asyncio.sleep(0)
        turns.give()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        await asyncio.wait_for(turns.take("last"), 5)  # all gave back what they took
        return " ".join(order)

    return asyncio.run(main())


def test_tenants_take_turns_whoever_came_first() -> None:
    assert played("aaaabc") == "a0 b4 c5 a1 a2 a3"
    assert played("aaa") == "a0 a1 a2"


def test_the_tenant_whose_turn_it_was_goes_last() -> None:
    async def main() -> None:
        turns = Turns()
        await turns.take("a")
        again, other = (asyncio.create_task(turns.take(tenant)) for tenant in ("a", "b"))
        await asyncio.sleep(0)
        turns.give()
        await asyncio.wait_for(other, 5)
        assert not again.done()
        turns.give()
        await asyncio.wait_for(again, 5)

    asyncio.run(main())


def test_who_leaves_costs_its_tenant_no_turn() -> None:
    assert played("aaabb", leaving=(0, 1)) == "a2 b3 b4"
    assert played("ab", leaving=(0, 1)) == ""


def test_who_leaves_when_its_turn_comes_passes_it_on() -> None:
    async def main() -> None:
        turns = Turns()
        await turns.take("a")
        leaver = asyncio.create_task(turns.take("a"))
        other = asyncio.create_task(turns.take("b"))
        await asyncio.sleep(0)
        turns.give()
        leaver.cancel()  # granted, and not told yet
        await asyncio.wait_for(other, 5)
        assert leaver.cancelled()

    asyncio.run(main())
