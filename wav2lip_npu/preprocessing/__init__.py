"""Videos to training clips, and clips to file lists."""
