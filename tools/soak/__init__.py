"""What takes too long for every change: random configurations, kills, honest fleets (`make soak`)."""
