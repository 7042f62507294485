"""Only public addresses: checked after the name is resolved, on the very address that is connected to.

A name that resolves to another address the next time (DNS rebinding) gains nothing, since nothing is resolved
between the check and the connection; nor does a redirect, whose connection is checked like any other.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
DNS_SECONDS = 300  # that a resolved name is remembered


class AddressRefused(OSError):
    """An address that may not be reached."""


class AddressPolicy:
    """Which addresses may be connected to: public ones, and those of the networks that are allowed."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self.allowed = [ipaddress.ip_network(network) for network in allowed]

    def permits(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        inner = _embedded(address) or address
        return is_public(address) or any(inner in network for network in self.allowed)

    def check(self, text: str) -> None:
        """Raise AddressRefused for an address that may not be reached."""
        if not self.permits(text):
            raise AddressRefused(f"{text} is no public address")

    def open_socket(self, found: Any) -> socket.socket:
        """A socket for an address as getaddrinfo gives it, which is the one that it will be connected to."""
        family, kind, protocol, _, address = found
        self.check(address[0])
        return socket.socket(family, kind, protocol)


def is_public(address: Address) -> bool:
    """Whether an address is one of the open Internet; one that embeds an IPv4 address is as that is."""
    if (inner := _embedded(address)) is not None:
        return is_public(inner)
    special = address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False)
    return address.is_global and not special


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address end at, if there is one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def guarded_connector(policy: AddressPolicy) -> "aiohttp.TCPConnector":
    """A connector that connects to nothing else. How many connections it has is for its caller to limit."""
    import aiohttp

    return aiohttp.TCPConnector(
        resolver=_resolver(policy),
        socket_factory=policy.open_socket,
        limit=0,
        ttl_dns_cache=DNS_SECONDS,
    )


def _resolver(policy: AddressPolicy) -> "AbstractResolver":
    """Names to those of their addresses that may be reached. AddressRefused where there is none."""
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class PolicyResolver(AbstractResolver):
        def __init__(self) -> None:
            self.inner = aiohttp.DefaultResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await self.inner.resolve(host, port, family)
            permitted = [entry for entry in found if policy.permits(entry["host"])]
            if not permitted:
                raise AddressRefused(f"{host} is {found[0]['host']}, no public address")
            return permitted

        async def close(self) -> None:
            await self.inner.close()

    return PolicyResolver()
