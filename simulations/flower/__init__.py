"""FedMTL as a Flower app."""
