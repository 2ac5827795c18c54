"""Owns how MedForge's programs expose metrics: definitions, histograms of durations, the page that Prometheus reads.

A leaf module that daemon and facade share, and the only door to prometheus_client. What is measured is kept as plain
numbers by whoever measures it and made into families when somebody asks: there is no registry and nothing global.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from medforged import __version__

__all__ = [
    "PATH",
    "PROCESS",
    "Definition",
    "Durations",
    "Kind",
    "Metric",
    "Read",
    "build_info",
    "counter",
    "exposing",
    "gauge",
    "histogram",
    "labelled",
    "merged",
    "parsed",
    "process",
]

PATH = "/metrics"
_BACKLOG = 16

Read = Callable[[], Awaitable[list[Metric]]]


class Kind(StrEnum):
    """What may be done with a metric's numbers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Durations:
    """How many things took how long, as plain numbers; `bounds` are the upper ends of the buckets in seconds."""

    __slots__ = ("_bounds", "_counts", "_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """The buckets as Prometheus has them, each with all that was quicker, and the sum in seconds."""
        found, sum_ = [], 0.0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            sum_ += count
            found.append((bound, sum_))
        return found, self._seconds


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric by the name that Prometheus shows; a counter's ends with `_total`.

    No label may have a value that somebody outside can choose, or that grows without bound.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()

    def numbers(self, values: Mapping[tuple[str, ...], float]) -> Metric:
        """Its family: a number for each combination of labels' values."""
        made = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        family = made(self.name, self.meaning, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family

    def number(self, value: float | None) -> Metric:
        """Its family where it has no labels; without a value it has no sample."""
        return self.numbers({} if value is None else {(): value})

    def durations(self, values: Mapping[tuple[str, ...], Durations]) -> Metric:
        """Its family, of a histogram."""
        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, durations in values.items():
            buckets, seconds = durations.buckets()
            family.add_metric(labels, buckets, seconds)
        return family


def counter(name: str, meaning: str, *labels: str) -> Definition:
    """What only grows."""
    return Definition(name, Kind.COUNTER, meaning, labels)


def gauge(name: str, meaning: str, *labels: str) -> Definition:
    """What goes up and down."""
    return Definition(name, Kind.GAUGE, meaning, labels)


def histogram(name: str, meaning: str, *labels: str) -> Definition:
    """How long things take."""
    return Definition(name, Kind.HISTOGRAM, meaning, labels)


# What every process tells of itself; the names are those that Prometheus's clients have for it.
PROCESS = (
    counter("process_cpu_seconds_total", "Processor time that the process has used"),
    gauge("process_max_fds", "Descriptors that the process may have open"),
    gauge("process_open_fds", "Descriptors that the process has open"),
    gauge("process_resident_memory_bytes", "Memory that the process occupies"),
    gauge("process_start_time_seconds", "When the process started, in Unix time"),
    gauge("process_virtual_memory_bytes", "Address space of the process"),
)


def process() -> list[Metric]:
    """The families of PROCESS, read from /proc."""
    return list(ProcessCollector(registry=None).collect())


def build_info(definition: Definition) -> Metric:
    """Always 1; its labels, `version` and `python`, tell what runs."""
    return definition.numbers({(__version__, ".".join(map(str, sys.version_info[:3]))): 1})


def parsed(page: str) -> list[Metric]:
    """The families of a page in the text format. Raises ValueError."""
    return list(text_string_to_metric_families(page))


def labelled(families: Iterable[Metric], label: str, value: str) -> list[Metric]:
    """The same families, each sample with one more label."""
    found = list(families)
    for family in found:
        family.samples = [sample._replace(labels={**sample.labels, label: value}) for sample in family.samples]
    return found


def merged(pages: Iterable[list[Metric]]) -> list[Metric]:
    """The families of several processes as one page: each once, with the samples of all."""
    found: dict[str, Metric] = {}
    for family in itertools.chain.from_iterable(pages):
        if family.name in found:
            found[family.name].samples += family.samples
        else:
            found[family.name] = family
    return list(found.values())


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


@asynccontextmanager
async def exposing(listener: socket.socket, read: Read) -> AsyncIterator[None]:
    """Answer `GET /metrics` on a listening socket for as long as the context lasts.

    `read` runs on the event loop and must not wait for the host; making text of it has a thread of its own, so that a
    page with thousands of lines holds nobody up.
    """
    threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")

    async def answer(_request: web.Request) -> web.Response:
        families = _Families(await read())
        body = await asyncio.get_running_loop().run_in_executor(threads, generate_latest, families)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"})

    app = web.Application(client_max_size=1024)
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        yield
    finally:
        await runner.cleanup()
        threads.shutdown(wait=False, cancel_futures=True)
