"""Least times and peak memory, for the benchmarks beside it."""

import time

import torch


def least(function, repeats):
    """Least time of several calls in milliseconds, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def side_by_side(functions, repeats):
    """Least milliseconds of each function, called in turn.

    Load on the machine then reaches all of them alike.
    """
    for function in functions.values():
        function()
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: 1000 * seconds for name, seconds in best.items()}


def most_memory(function):
    """Largest sum of tensors alive during a call beyond those before, MB."""
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(
        activities=[activity], profile_memory=True
    ) as profile:
        function()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 1e6
