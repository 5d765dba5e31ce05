"""Where Attempts come from and Anomalies go to."""
