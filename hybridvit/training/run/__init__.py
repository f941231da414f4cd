"""What a run keeps: its folder, snapshots, lock, and the signals that end it."""
