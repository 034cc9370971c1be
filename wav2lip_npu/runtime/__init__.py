"""What every command runs on: devices, processes, threads, signals, files."""
