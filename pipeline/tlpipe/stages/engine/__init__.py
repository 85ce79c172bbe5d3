"""Engine: runs a network over a stream of items, in order, with every core busy.

Owns the threads. One thread per core, each of which loads a few images and infers them on the
shared session: no queue between decoding and inference can run empty or full, whatever their
ratio. Results come out in the order of the items, and what is under way is bounded, so that memory
does not grow with their number.

Takes items, a loader and a ``Network``; gives outcomes. Imports ``seams``, ``types`` and NumPy.

run    -> runs a network over a stream of items
line   -> what is under way, in groups, and the order in which it comes out
work   -> what one thread does with a group of items
loader -> what the engine is given to make pixels of an item
ahead  -> reads slow files before they are needed
sizes  -> how many images go into a call, and into a group
watch  -> what the threads spend their time on
"""

from tlpipe.stages.engine.loader import Fetched, Loader
from tlpipe.stages.engine.run import Plan, run
from tlpipe.stages.engine.watch import KINDS, Listener, Span, Watch
from tlpipe.stages.engine.work import Settle

__all__ = ["KINDS", "Fetched", "Listener", "Loader", "Plan", "Settle", "Span", "Watch", "run"]
