"""What the server answers: one plain function for each path."""
