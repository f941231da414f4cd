"""A page that measures exported models in the browser that opens it: on the phone in your hand, too."""

from hybridvit.bench_page.page import BenchPage, write_page

__all__ = ["BenchPage", "write_page"]
