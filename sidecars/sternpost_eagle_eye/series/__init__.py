"""How unusual each row of a series is: one configuration for one column or hundreds. Needs numpy; nothing else imports it."""

from sternpost_eagle_eye.series.detector import score_series

__all__ = ["score_series"]
