"""Traffic to look at: the Open Bandit sample and simulated shoppers."""
