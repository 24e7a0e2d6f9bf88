"""`python -m tools.soak.caches`: kills processes while they store KV caches in one folder, damages files, and judges.

In each round some processes answer prompts in random order, with one slot each, so that each prompt evicts another to
the disk. They are killed at random moments. Then files are damaged, and one more process answers all prompts.
All answers must be those of a process without a folder. Damaged files must be gone with one line in the log each,
unfinished files and locks must not stay, and the folder must keep its limit.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from tools.soak.caches.damage import KINDS
from tools.soak.caches.worker import Answer, Prompt, Task, work

MODEL: Final = Path(__file__).parents[3] / "tests/models/chatter.gguf"
_ANSWER_SECONDS: Final = 120.0
"""How long an answer may take on a busy machine."""
_CHATS: Final = 8
_SALTS: Final = 2


@dataclass(slots=True)
class Verdict:
    """The counts of a run, and its faults."""

    answers: int = 0
    restored: int = 0
    """Answers to prompts of which the disk had a part."""
    unfinished: int = 0
    """Files that killed processes left unfinished."""
    damaged: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    """Lines of the log about dropped files."""
    faults: list[str] = field(default_factory=list)


class Running:
    """A process that answers prompts."""

    def __init__(self, task: Task) -> None:
        """Start it."""
        context = get_context("forkserver")
        context.set_forkserver_preload(["tools.soak.caches.preloaded"])
        self.task = task
        self._answers, other = context.Pipe(duplex=False)
        self.process: ForkServerProcess = context.Process(target=work, args=(task, other), daemon=True)
        self.process.start()
        other.close()

    def answer(self) -> Answer | None:
        """Return the next answer; None after its end. Raises TimeoutError."""
        if not self._answers.poll(_ANSWER_SECONDS):
            raise TimeoutError
        return _received(self._answers)

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self.process.kill()
        self.process.join()

    def rest(self) -> Iterator[Answer]:
        """Yield the answers up to its end. Raises TimeoutError."""
        while (answer := self.answer()) is not None:
            yield answer


def _received(answers: Connection) -> Answer | None:
    try:
        received = answers.recv()
    # What a killed process had sent in part cannot be read.
    except (EOFError, OSError):
        return None
    assert isinstance(received, Answer)
    return received


class Soak:
    """The rounds of a run."""

    def __init__(self, told: argparse.Namespace, scratch: Path, folder: Path) -> None:
        """Find the right answers with a process that has no folder."""
        self._told, self._scratch, self._folder = told, scratch, folder
        self._draw = random.Random(told.seed)
        self.verdict = Verdict()
        self._prompts = _prompts(self._draw)
        self._right = self._answered(self._prompts, {})

    def _task(self, prompts: Sequence[Prompt], options: dict[str, object], seed: int | None) -> Task:
        return Task(self._told.model, options, prompts, seed, self._scratch / "log")

    def _answered(self, prompts: Sequence[Prompt], options: dict[str, object]) -> dict[int, str]:
        running = Running(self._task(prompts, options, None))
        try:
            found = {answer.prompt: answer for answer in running.rest()}
            running.process.join(_ANSWER_SECONDS)
        except TimeoutError:
            self.verdict.faults.append("a process hangs")
            found = {}
        if running.process.exitcode != 0:
            self.verdict.faults.append(f"a process ended with {running.process.exitcode}: {self._log()[-2000:]}")
            running.kill()
        self.verdict.restored += sum(answer.cached > 0 for answer in found.values())
        return {number: answer.text for number, answer in found.items()}

    def _log(self) -> str:
        log = self._scratch / "log"
        return log.read_text() if log.exists() else ""

    def round(self, number: int) -> None:
        """Kill, damage, and look at what is left."""
        (self._scratch / "log").unlink(missing_ok=True)
        self._killed()
        self.verdict.unfinished += len(self._files("new"))
        damaged = self._damaged()
        known = set(self._folder.glob("kv/*/"))
        # One that no process has seen yet, so that something is written.
        fresh = Prompt(_tokens(random.Random(number), 300), f"fresh {number}")
        texts = self._answered([*self._prompts, fresh], self._options())
        self._judge(texts)
        self._look(damaged)
        # Nobody asks for it again, so nobody would notice that it is damaged.
        for partition in set(self._folder.glob("kv/*/")) - known:
            shutil.rmtree(partition)

    def _options(self) -> dict[str, object]:
        secret = {"kv_cache_folder_secret": "secret"} if self._told.secret else {}
        limit = int(self._told.megabytes * 1e6)
        return {"kv_cache_folder": str(self._folder / "kv"), "kv_cache_folder_bytes": limit, **secret}

    def _killed(self) -> None:
        """Run processes, and kill each at a random moment."""
        draw = self._draw
        tasks = [self._task(self._prompts, self._options(), draw.getrandbits(32)) for _ in range(self._told.processes)]
        processes = [Running(task) for task in tasks]
        answers: list[Answer] = []
        try:
            answers += [answer for each in processes if (answer := each.answer()) is not None]
        except TimeoutError:
            self.verdict.faults.append("a process does not answer")
        for each in processes:
            time.sleep(draw.random() * self._told.seconds)
            each.kill()
        for each in processes:
            answers += each.rest()
        self.verdict.restored += sum(answer.cached > 0 for answer in answers)
        for answer in answers:
            self._judge({answer.prompt: answer.text})

    def _judge(self, texts: dict[int, str]) -> None:
        self.verdict.answers += len(texts)
        for number, right in self._right.items():
            if texts.get(number, right) != right:
                self.verdict.faults.append(f"prompt {number} has the answer {texts[number]!r} instead of {right!r}")

    def _files(self, suffix: str) -> list[Path]:
        return sorted(self._folder.glob(f"kv/*/*.{suffix}"))

    def _damaged(self) -> dict[Path, tuple[str, bytes]]:
        """Damage files. Return the kinds of damage, and what they have now."""
        damaged = {}
        files = self._files("kv")
        for path in self._draw.sample(files, min(2, len(files))):
            kind = self._draw.choice(list(KINDS))
            before = path.read_bytes()
            # A full disk has no room for some damage, and cuts the file instead.
            with suppress(OSError):
                KINDS[kind](path, self._draw)
            if (data := path.read_bytes()) != before:
                damaged[path] = kind, data
                self.verdict.damaged[kind] += 1
        return damaged

    def _look(self, damaged: dict[Path, tuple[str, bytes]]) -> None:
        log, faults = self._log(), self.verdict.faults
        self.verdict.dropped += log.count("is removed")
        for path, (kind, data) in damaged.items():
            name = f"{path.parent.name}/{path.stem}"
            if path.exists() and path.read_bytes() == data:
                faults.append(f"{name} is damaged ({kind}) and still there")
            if log.count(f"{name} is removed") > 1:
                faults.append(f"more than one line about {name}")
        dropped = {f"{path.parent.name}/{path.stem}" for path in damaged}
        for line in log.splitlines():
            if "is removed" in line and not any(name in line for name in dropped):
                faults.append(f"an undamaged file was dropped: {line}")
        faults += [f"left unfinished: {path.name}" for path in self._files("new")]
        total = sum(path.stat().st_size for path in self._files("kv"))
        if total > self._told.megabytes * 1e6:
            faults.append(f"the folder has {total} bytes")
        if "Traceback" in log:
            faults.append(f"a traceback: {log[log.index('Traceback') :][:2000]}")


def _tokens(draw: random.Random, length: int) -> tuple[int, ...]:
    return tuple(draw.randrange(3, 200) for _ in range(length))


def _prompts(draw: random.Random) -> list[Prompt]:
    """Return chats, and then the same chats when they have grown."""
    short = [Prompt(_tokens(draw, draw.randrange(200, 900)), str(number % _SALTS)) for number in range(_CHATS)]
    long = [Prompt(each.tokens + _tokens(draw, draw.randrange(200, 900)), each.salt) for each in short]
    return short + long


@contextmanager
def _disk(megabytes: int, scratch: Path) -> Iterator[Path]:
    """Yield a folder: on a disk of so many megabytes, which needs root, or on any disk for 0."""
    folder = scratch / "disk"
    folder.mkdir()
    if not megabytes:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "kv", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def arguments() -> argparse.Namespace:
    """Read argv."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak.caches", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="the longest time between two kills")
    parser.add_argument("--megabytes", type=float, default=2.0, help="the limit of the folder")
    parser.add_argument("--disk", type=int, default=0, help="megabytes of a disk of its own, which needs root")
    parser.add_argument("--secret", action="store_true", help="encrypt the files")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> int:
    """Run everything and print the counts; return 0 if there is no fault."""
    told = arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="caches-") as scratch, _disk(told.disk, Path(scratch)) as folder:
        soak = Soak(told, Path(scratch), folder)
        for number in range(told.rounds):
            known = len(soak.verdict.faults)
            soak.round(number)
            for fault in soak.verdict.faults[known:]:
                print(f"round {number}: {fault}", file=sys.stderr)
        shutil.rmtree(folder / "kv", ignore_errors=True)
    verdict = soak.verdict
    print(f"{told.rounds} rounds in {time.monotonic() - began:.0f} s, {told.rounds * told.processes} processes killed")
    print(f"{verdict.answers} answers, {verdict.restored} of them from the disk in part")
    print(f"{verdict.unfinished} files were left unfinished; damaged: {dict(verdict.damaged)}, {verdict.dropped} lines")
    for fault in verdict.faults:
        print(f"FAULT: {fault}")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
