"""Where the orders of a simulation are trained: in this process, on Ray, or on Flower's engine."""
