"""Tables of ablations: a base recipe, a row of options for each line, and seeds; run in processes, then compared."""
