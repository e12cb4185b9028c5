"""Names and addresses of hosts: which of them are this machine, and reachable from no other."""

from __future__ import annotations

import ipaddress


def host_of(header: str) -> str:
    """The name or the address in a Host header, in small letters and without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Whether a host, by its address or as `localhost`, is this machine and reachable from no other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
