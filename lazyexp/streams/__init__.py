"""What is presented when, and what is stored for replay. Rules and engines do not know of it."""

from lazyexp.streams.measures import Progress, progress
from lazyexp.streams.phases import Phase, check_members, make_phases
from lazyexp.streams.replay import Replay
from lazyexp.streams.store import Store

__all__ = ["Phase", "Progress", "Replay", "Store", "check_members", "make_phases", "progress"]
