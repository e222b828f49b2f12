"""The neural tangent kernel as an instrument: spectra, alignment, and the decay of errors that it predicts."""

from fedmtl.ntk.alignment import cosines, group_alignment, kernel_alignment, mean_gradient_products
from fedmtl.ntk.kernels import Kernels
from fedmtl.ntk.spectrum import Spectrum, dense_spectrum, free_spectrum
from fedmtl.ntk.tangents import Rows, Tangents

__all__ = [
    "Kernels",
    "Rows",
    "Spectrum",
    "Tangents",
    "cosines",
    "dense_spectrum",
    "free_spectrum",
    "group_alignment",
    "kernel_alignment",
    "mean_gradient_products",
]
