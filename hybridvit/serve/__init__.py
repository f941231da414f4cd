"""A model as a service over HTTP, and the page that people use it by."""
