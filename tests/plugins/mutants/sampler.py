"""The sampler of the tiny model: bias, penalties, the filters in the contract's order, temperature, draw."""

import random
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from puna.backend import Sampling

Logits = NDArray[np.float64]


def softmax(logits: Logits) -> Logits:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


class Sampler:
    """One sequence's sampler. Each step is a method of its own, so that a mutant changes one."""

    def __init__(self, sampling: Sampling, prompt: list[int]) -> None:
        self.sampling = sampling
        self.recent = list(prompt)
        self.random = self.generator(sampling.seed)

    def generator(self, seed: int | None) -> random.Random:
        return random.Random(seed)

    def sample(self, logits: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> int:
        values = self.penalise(self.bias(logits.astype(np.float64)))
        if mask is not None:
            values = np.where(mask, values, -np.inf)
        token = int(np.argmax(values)) if self.greedy() else self.draw(values)
        self.recent.append(token)
        return token

    def greedy(self) -> bool:
        return self.sampling.temperature <= 0

    def bias(self, logits: Logits) -> Logits:
        for token, bias in self.sampling.logit_bias.items():
            logits[token] += bias
        return logits

    def window(self) -> list[int]:
        last = self.sampling.repeat_last_n
        return self.recent if last < 0 else self.recent[-last:] if last else []

    def penalise(self, logits: Logits) -> Logits:
        for token, count in Counter(self.window()).items():
            if token < len(logits):
                logits[token] = self.penalised(float(logits[token]), count)
        return logits

    def penalised(self, logit: float, count: int) -> float:
        logit = self.repeated(logit, count)
        return logit - self.presence(count) - self.frequency(count)

    def repeated(self, logit: float, count: int) -> float:
        penalty = self.sampling.repeat_penalty
        return logit / penalty if logit > 0 else logit * penalty

    def presence(self, count: int) -> float:
        return self.sampling.presence_penalty

    def frequency(self, count: int) -> float:
        return self.sampling.frequency_penalty * count

    def draw(self, logits: Logits) -> int:
        for step in (self.top_k, self.typical_p, self.top_p, self.min_p, self.temperature):
            logits = step(logits)
        return self.random.choices(range(len(logits)), softmax(logits).tolist())[0]

    def top_k(self, logits: Logits) -> Logits:
        keep = self.sampling.top_k
        return only(logits, np.argsort(-logits, kind="stable")[:keep]) if 0 < keep < len(logits) else logits

    def typical_p(self, logits: Logits) -> Logits:
        if self.sampling.typical_p >= 1:
            return logits
        shares = softmax(logits)
        surprise = -np.log(np.maximum(shares, 1e-300))
        entropy = float((shares * surprise).sum())
        return only(logits, reach(np.argsort(np.abs(surprise - entropy)), shares, self.sampling.typical_p))

    def top_p(self, logits: Logits) -> Logits:
        if self.sampling.top_p >= 1:
            return logits
        shares = softmax(logits)
        return only(logits, reach(np.argsort(-shares, kind="stable"), shares, self.sampling.top_p))

    def min_p(self, logits: Logits) -> Logits:
        shares = softmax(logits)
        return only(logits, np.flatnonzero(shares >= self.sampling.min_p * shares.max()))

    def temperature(self, logits: Logits) -> Logits:
        return logits / self.sampling.temperature


def only(logits: Logits, kept: NDArray[np.intp]) -> Logits:
    """Return logits with all but these tokens ruled out."""
    left = np.full_like(logits, -np.inf)
    left[kept] = logits[kept]
    return left


def reach(order: NDArray[np.intp], shares: Logits, mass: float) -> NDArray[np.intp]:
    """Return the first tokens of an order whose probabilities reach a sum."""
    return order[: int(np.searchsorted(np.cumsum(shares[order]), mass)) + 1]
