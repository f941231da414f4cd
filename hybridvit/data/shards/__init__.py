"""Images in tar files (WebDataset's layout) with an index, on this machine or behind a URL."""
