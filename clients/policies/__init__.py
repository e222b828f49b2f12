"""The client's halves of the policies, one a file, named like the server's."""

from clients.policies.base import ClientHalf
from clients.policies.table import CLIENT_HALVES, client_half

__all__ = ["CLIENT_HALVES", "ClientHalf", "client_half"]
