"""How an update is made smaller on its way to the server."""

from fedmtl.compression.base import CompressionError, Compressor
from fedmtl.compression.shared_randomness import SharedRandomness
from fedmtl.compression.table import COMPRESSORS, build_compressor, compressor_of, forget_compressors
from fedmtl.compression.top_entries import TopEntries

__all__ = [
    "COMPRESSORS",
    "CompressionError",
    "Compressor",
    "SharedRandomness",
    "TopEntries",
    "build_compressor",
    "compressor_of",
    "forget_compressors",
]
