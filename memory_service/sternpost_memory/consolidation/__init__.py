"""From the buffer to topic documents. Decisions are pure; `worker` runs them."""
