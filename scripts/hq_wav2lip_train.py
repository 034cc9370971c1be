"""Train Wav2Lip with a discriminator; has the options of the original's script of this name."""

from _command import run

if __name__ == "__main__":
    run("train", "--disc")
