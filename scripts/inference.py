"""Lip-sync a video; has the options of the original's script of this name."""

from _command import run

if __name__ == "__main__":
    run("infer")
