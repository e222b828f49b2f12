"""What a strategy is made of, and how it runs: parts, jobs, ledger and loop; no disk, clock, Ray or Flower."""
