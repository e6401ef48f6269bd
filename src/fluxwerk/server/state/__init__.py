"""What the server knows: accounts, keys, tasks, links and counts, and where they are kept."""
