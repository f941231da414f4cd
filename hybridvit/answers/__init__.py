"""Where answers go: tables and lines, pictures and videos with them drawn."""
