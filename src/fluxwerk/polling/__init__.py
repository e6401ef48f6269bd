"""Polling: what earlier tasks taught about durations, the schedule that follows from it, and the limit on polls."""
