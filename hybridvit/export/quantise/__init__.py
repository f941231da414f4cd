"""8-bit integers after training: what to calibrate on, which layers suffer, and how many of them to keep out of it."""

from hybridvit.export.quantise.accuracy import Accuracy
from hybridvit.export.quantise.plan import QuantisationPlan, plan_from_folder

__all__ = ["Accuracy", "QuantisationPlan", "plan_from_folder"]
