"""Recordings, judged by the same judge as live vectors, faster than they were made."""

from sternpost_eagle_eye.replay.player import Player, Verdict, replay_text, replay_vectors

__all__ = ["Player", "Verdict", "replay_text", "replay_vectors"]
