"""Numbers that the published checkpoints fix, and the version; all modules use these."""

VERSION = "0.2.0.dev0"
FPS = 25  # video frames per second of all training data
SAMPLE_RATE = 16_000  # Hz, mono
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
WINDOW_FRAMES = 5  # video frames that SyncNet sees together: 0.2 s
FACE_SIZE = 96  # pixels, height and width of a face as the networks see it
LOWER_HALF = FACE_SIZE // 2  # first row of the half that is masked and generated
