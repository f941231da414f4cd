"""Models of others: their names in timm, what they were published to reach, and the papers' tables of them.

Importing it imports neither timm nor torch.
"""

from hybridvit.peers.accuracy import published_accuracy
from hybridvit.peers.peer import Accuracy, Peer
from hybridvit.peers.timm_names import MISSING, PEERS

__all__ = ["MISSING", "PEERS", "Accuracy", "Peer", "published_accuracy"]
