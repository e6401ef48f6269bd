"""The ledger: jobs that are paid for, the transitions between their stages, the slots they share and the budget."""
