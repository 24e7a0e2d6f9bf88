"""Processes that work on one store until they are killed: the real store and the real registry client, in short order.

`python -m tests.registry.nursery STORE PULLED PUSHED FILES` loads everything once. Each line of its input is a seed; a
child is forked for it, whose process id it writes. It pulls, pushes, creates, copies, imports, deletes and prunes as
the seed has it, several at once. What is no ordinary refusal goes to standard error, where the test looks.
"""

import asyncio
import os
import random
import signal
import sys
import traceback
from contextlib import aclosing
from pathlib import Path

from tests.registry.limits import QUICK

from puna.errors import CreateFailedError, TransferError
from puna.model_name import ModelName
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.registry.authorization import Identity
from puna.models.registry.registries import Registries
from puna.models.storage import prune
from puna.models.store import ModelStore
from puna.models.upkeep.in_place import Link, register
from puna.models.upkeep.scan import find

TOGETHER = 4
"""Operations at once in each process."""
LOCAL = [f"local{number}" for number in range(6)]
YOUNG_SECONDS = 0.3
"""What counts as old for every other process: what nobody holds is pruned almost at once."""


class Worker:
    """One process's share of the work."""

    def __init__(self, root, pulled, pushed, files, chance):
        self.store = ModelStore(Path(root))
        self.registries = Registries(self.store, Identity(), QUICK)
        self.pulled, self.pushed = pulled.split(","), pushed
        self.files = sorted(Path(files).iterdir())
        self.chance = chance

    def any(self):
        names = self.store.names()
        return self.chance.choice(names) if names else ModelName.parse(LOCAL[0])

    def local(self):
        return ModelName.parse(self.chance.choice(LOCAL))

    async def pull(self):
        name = ModelName.parse(self.chance.choice(self.pulled))
        async with aclosing(self.registries.pull(name, insecure=True)) as steps:
            async for _ in steps:
                pass

    async def push(self):
        name = ModelName.parse(f"{self.pushed}/tests/pushed{self.chance.randrange(4)}:v1")
        await asyncio.to_thread(self.store.copy, self.any(), name)
        async with aclosing(self.registries.push(name, insecure=True)) as steps:
            async for _ in steps:
                pass

    async def create(self):
        request = CreateRequest(
            name=self.local().full, base=self.any().shortest, system=f"Be {self.chance.randrange(50)}."
        )
        await asyncio.to_thread(lambda: list(create(self.store, request)))

    async def import_(self):
        path, link = self.chance.choice(self.files), self.chance.choice([Link.AUTOMATIC, Link.SYMBOLIC, Link.COPY])
        (found,) = find([path])[0]
        await asyncio.to_thread(lambda: list(register(self.store, found, self.local(), link=link)))

    async def copy(self):
        await asyncio.to_thread(self.store.copy, self.any(), self.local())

    async def delete(self):
        await asyncio.to_thread(self.store.delete, self.any())

    async def prune(self):
        await asyncio.to_thread(self.store.prune)

    async def work(self):
        kinds = [self.pull, self.pull, self.push, self.create, self.import_, self.copy, self.delete, self.prune]
        while True:
            try:
                await self.chance.choice(kinds)()
            except (LookupError, TransferError, CreateFailedError):
                await asyncio.sleep(0)  # others remove what one is about to use


async def live(worker):
    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(worker.work())


def child(arguments, seed):
    chance = random.Random(seed)
    if chance.random() < 0.5:
        prune.YOUNG_SECONDS = YOUNG_SECONDS
    try:
        asyncio.run(live(Worker(*arguments, chance)))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            child(sys.argv[1:], line.strip())
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
