"""Pure builders of the objects that a job consists of: no client, no clock, no socket."""
