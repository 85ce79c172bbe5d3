"""Calls: reading one item from a network, with an end in all, and a way to end it sooner.

A socket's own timeout is for one piece: a server that sends a byte a second would be waited for
until the end of time, and nobody could stop the wait. So each call knows its sockets, and shuts
them down when its time is over or the run has ended.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from tlpipe.addresses import host_of
from tlpipe.web import FetchError

_CONNECT_S = 10.0


class Interrupted(RuntimeError):  # noqa: N818  (it is no error: nobody wants the item any more)
    """The run has ended while an item was read."""


class Lies(enum.IntEnum):
    """Where an address of a machine lies, as seen from this one."""

    PUBLIC = 0
    PRIVATE = 1  # in a network of one's own
    NEAR = 2  # this machine itself, its link (where clouds keep their credentials), no single one


class LateError(FetchError):
    """It did not come whole in the time that an item may take."""


class RefusedError(FetchError):
    """The address leads where nobody allowed it to.

    Parameters
    ----------
    cause : str
    named : bool
        Whether it is the address that was asked for, not a redirect.
    """

    def __init__(self, cause: str, *, named: bool) -> None:
        super().__init__(cause)
        self.named = named


def lies(address: str) -> Lies:
    """Where an IP address lies (RFC 6890); IPv4 within IPv6 counts as what it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return lies(str(inner))
    near = ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
    if near or (ip.is_reserved and not ip.is_global):
        return Lies.NEAR
    return Lies.PUBLIC if ip.is_global else Lies.PRIVATE


_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


def _literally(host: str) -> Lies:
    """Where a host lies, by its name alone; a name that tells nothing counts as public."""
    if host == "localhost" or host.endswith(".localhost"):
        return Lies.NEAR
    try:
        return lies(host)
    except ValueError:
        return Lies.PUBLIC


class Call:
    """The reading of one item: a ``Route`` for its requests.

    Parameters
    ----------
    inside : bool
        Whether the user named the item's host, which may then lie anywhere. Redirects to other
        hosts may lead to public ones; and to hosts of one's own network where the first one lies
        in such a network or on this machine.
    most_s : float
        Seconds that it may take.
    """

    def __init__(self, *, inside: bool, most_s: float) -> None:
        self._inside = inside
        self._until = time.monotonic() + most_s
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._named = self._host = ""
        self._furthest = Lies.PUBLIC
        self.interrupted = False

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() >= self._until

    def over(self, seconds: float) -> bool:
        """Wait up to so long for its end."""
        return self._over.wait(seconds)

    @property
    def rest(self) -> float:
        """Seconds until its time is over."""
        return max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Raise ``Interrupted`` where the run has ended, and ``LateError`` after its time."""
        if self.interrupted:
            raise Interrupted("the run has ended: nobody asks for this any more")
        if self.late:
            raise LateError("it did not come whole in time")

    def pause(self, seconds: float) -> None:
        """Wait; raises as ``check``."""
        self._over.wait(min(seconds, self.rest))
        self.check()

    def prolong(self, seconds: float) -> None:
        """Give it more time."""
        with self._lock:
            self._until += seconds

    def end(self, *, interrupted: bool) -> None:
        """Have whatever it waits for end now."""
        with self._lock:
            self.interrupted = self.interrupted or interrupted
            self._over.set()
            for handle in self._sockets:
                with contextlib.suppress(OSError):  # it is not connected, or not any more
                    handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forget its sockets."""
        with self._lock:
            for handle in self._sockets:
                handle.close()
            self._sockets.clear()

    def lead(self, url: str) -> None:
        """See ``Route``."""
        self._host = host_of(url)
        self._named = self._named or self._host
        self._allow(_literally(self._host))

    def connect(
        self, address: tuple[str, int], timeout: float, source: tuple[str, int] | None = None
    ) -> socket.socket:
        """See ``Route``."""
        host, port = address
        failure: OSError | FetchError = OSError("the name has no address")
        for family, kind, proto, _, place in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
            self.check()
            try:
                if host.rstrip(".").lower() == self._host:  # else it is a proxy, which resolves
                    self._allow(lies(str(place[0])))
                return self._connected(socket.socket(family, kind, proto), place, timeout)
            except (OSError, RefusedError) as exc:
                failure = exc
        raise failure

    def _connected(self, made: socket.socket, place: Any, timeout: float) -> socket.socket:
        try:
            # Another name of the same socket, which stays valid when TLS takes it over.
            handle = made.dup()
            with self._lock:
                self._sockets.append(handle)
            self.check()
            made.settimeout(min(_CONNECT_S, timeout))
            made.connect(place)
            made.settimeout(timeout)
            self.check()
        except BaseException:
            made.close()
            raise
        return made

    def _allow(self, where: Lies) -> None:
        """Refuse a host that lies where this call may not lead."""
        if self._inside and self._host == self._named:
            self._furthest = max(self._furthest, where)
            return
        if where is Lies.PUBLIC or (where is Lies.PRIVATE and self._furthest > Lies.PUBLIC):
            return
        what = "this machine or its link" if where is Lies.NEAR else "a private network"
        raise RefusedError(
            f"it leads to {self._host!r}, which lies on {what}", named=self._host == self._named
        )


class Calls:
    """The calls that are under way; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[Call] = set()

    @contextlib.contextmanager
    def call(self, *, inside: bool, most_s: float) -> Iterator[Call]:
        """Begin a call."""
        call = Call(inside=inside, most_s=most_s)
        with self._lock:
            self._under_way.add(call)
        timer = threading.Thread(target=_end_in_time, args=(call,), daemon=True)
        timer.start()
        try:
            yield call
        finally:
            with self._lock:
                self._under_way.discard(call)
            call.end(interrupted=False)  # the timer's wait as well
            call.close()

    def interrupt(self) -> None:
        """End all that is under way; each raises ``Interrupted``."""
        with self._lock:
            calls = list(self._under_way)
        for call in calls:
            call.end(interrupted=True)


def _end_in_time(call: Call) -> None:
    while not call.over(call.rest):
        if call.late:
            call.end(interrupted=False)
