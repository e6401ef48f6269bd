"""The ledger: jobs that are paid for, the moves between their stages, the slots they share and the budget."""
