"""What `evaluate --corruptions` is asked for, as one value. Importing it needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridvit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CorruptionOptions:
    """The options of corruptions made on the fly."""

    corruptions: Sequence[str] | None = None
    """evaluate on corrupted pictures too, and tell what is lost: names, or all (19), common (the 15 of ImageNet-C's
    mean), noise, blur, weather, digital, extra. Needs hybridvit[robustness]."""
    severities: Sequence[int] | None = None
    """of the corruptions, from 1, the least, to 5; all by default."""
    corruption_seed: int = 0
    """of all that is random in them; each picture has numbers of its own."""

    def check(self, *, is_of_one: bool) -> None:
        """Raise UsageError for options that do nothing; `is_of_one` file and its data, the only place for them."""
        if self.corruptions is None:
            if self != NO_CORRUPTIONS:
                raise UsageError("--severities and --corruption_seed need --corruptions, which is not given. Add it.")
        elif not is_of_one:
            raise UsageError(
                "--corruptions is for one file and its data, and --suites has pictures of its own. Leave one out."
            )


NO_CORRUPTIONS = CorruptionOptions()
