"""8-bit integers after training: what to calibrate on, which layers suffer, and how many of them to keep out of it."""

from hybridvit.export.quantise.plan import QuantisationPlan, plan_from_folder
from hybridvit.export.quantise.quality import Quality

__all__ = ["Quality", "QuantisationPlan", "plan_from_folder"]
