"""Images from files: decoding, folders of classes, transforms, and the order in which training sees them."""
