"""The barrier of native/barrier.c: what a thread computes before it, all threads see after it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from puna_ggml_kernels import ggml as own

PRODUCTS = 60
"""Products of a graph, each of which reads all that the one before has written."""
STOPS = 6
"""Places between those products at which each thread may do something else."""
PATIENCE_S = 20
"""Far longer than anything here takes, on the busiest machine."""
Between = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def wait_until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@pytest.fixture
def chain(ggml, compute):
    """Return a function that computes a chain of products with so many columns, on so many threads.

    `between` is called by each thread, with its index, at each of the STOPS.
    """
    ggml.ggml_mul_mat.restype = ggml.ggml_map_custom1_inplace.restype = ctypes.c_void_p
    random = np.random.default_rng(3)
    # A rotation keeps the size of the values, and mixes all of them.
    rotation = np.linalg.qr(random.standard_normal((64, 64)))[0].astype(np.float32)[None, None]

    def chain(columns, threads, between=None):
        call = Between(lambda _dst, _values, index, _threads, _data: between(index))

        def products(memory, matrix, values):
            for i in range(PRODUCTS):
                values = ctypes.c_void_p(ggml.ggml_mul_mat(memory, matrix, values))
                if between and i % (PRODUCTS // STOPS) == 0:
                    values = ctypes.c_void_p(ggml.ggml_map_custom1_inplace(memory, values, call, -1, None))
            return values.value

        values = np.random.default_rng(columns).standard_normal((1, 1, columns, 64), np.float32)
        return compute((rotation, values), products, values.shape, threads)

    return chain


@pytest.mark.kernels
def test_threads_see_what_others_computed_when_their_number_changes_from_graph_to_graph(library, chain):
    expected = chain(48, 1)
    before = library.puna_sleeping_graphs()
    for _ in range(5):
        for threads in (2, 4, 1, 3):
            assert np.array_equal(chain(48, threads), expected)
    # Those with one thread meet nobody.
    assert library.puna_sleeping_graphs() - before == 15


@pytest.mark.kernels
def test_graphs_computed_at_once_do_not_meet_each_other(chain):
    columns = (32, 40, 48, 56, 64, 72)  # more than there is room for: the others meet at ggml's own barrier
    expected = [chain(each, 1) for each in columns]
    with ThreadPoolExecutor(len(columns)) as pool:
        for _ in range(4):
            for ours, alone in zip(pool.map(chain, columns, (2, 3, 4, 2, 3, 4)), expected, strict=True):
                assert np.array_equal(ours, alone)


@pytest.mark.kernels
@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_that_wait_for_long_sleep_and_are_woken(library, chain, threads):
    expected = chain(48, 1)
    slept = []

    def between(index):
        if index == 0:
            # The first thread goes on when all others have waited so long that they sleep.
            sleeps = (len(slept) + 1) * (threads - 1)
            slept.append(wait_until(lambda: library.puna_barrier_sleeps() - before >= sleeps))

    before = library.puna_barrier_sleeps()
    assert np.array_equal(chain(48, threads, between), expected)
    assert slept == [True] * STOPS


@pytest.mark.kernels
@pytest.mark.parametrize("threads", [2, 3, 4])
def test_many_graphs_end_beside_busy_programs(chain, threads):
    expected = chain(48, 1)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for _ in range(5):
            assert np.array_equal(chain(48, threads), expected)
    finally:
        for program in busy:
            program.kill()
            program.wait()


@pytest.mark.kernels
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_computes_while_its_parents_threads_wait(chain):
    expected = chain(48, 1)
    forked, children = threading.Event(), []

    def fork():
        # A thread of its own: OpenMP's threads of the forking thread do not exist in the child.
        child = os.fork()
        if not child:
            signal.alarm(PATIENCE_S)
            os._exit(0 if np.array_equal(chain(48, 2), expected) else 1)
        children.append(child)

    def between(index):
        if index == 0 and not forked.is_set():
            forking = threading.Thread(target=fork)
            forking.start()
            forking.join()
            forked.set()

    assert np.array_equal(chain(48, 2, between), expected)
    # A child that hangs is ended by its own alarm.
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


@pytest.mark.kernels
def test_without_openmp_a_graph_keeps_ggmls_barrier(library, chain, monkeypatch):
    expected, before = chain(48, 1), library.puna_sleeping_graphs()
    monkeypatch.setattr(own, "has_openmp", lambda: False)
    library.puna_set_functions(ctypes.byref(own.own_functions()[0]))
    monkeypatch.undo()
    try:
        assert np.array_equal(chain(48, 2), expected)
    finally:
        library.puna_set_functions(ctypes.byref(own.own_functions()[0]))
    assert library.puna_sleeping_graphs() == before
    chain(48, 2)
    assert library.puna_sleeping_graphs() == before + 1


@pytest.mark.kernels
def test_a_graph_of_few_columns_keeps_ggmls_barrier(library, chain):
    before = library.puna_sleeping_graphs()
    assert np.array_equal(chain(8, 2), chain(8, 1))
    assert library.puna_sleeping_graphs() == before
