"""What a model is worth: any model or exported file, on any samples."""
