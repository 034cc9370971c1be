"""A second portrait that talks: its lips touch, as those of most people at rest do."""

from pathlib import Path

import matplotlib

from wav2lip_npu.demo.talking_head import Portrait, PortraitFile, load_portrait

GRACE_HOPPER = PortraitFile(  # U.S. Navy 1984, public domain
    path=Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"),
    eyes_in_file=(262.0, 192.5),
    tilt_degrees=-2.6,
    scale=0.765,
    face_box=(63, 55, 197, 213),
    eyes=((96.0, 101.0), (163.0, 101.0)),
    nose_y=150.0,
    chin_y=205.0,
    upper_lip=(
        *((100, 170), (105, 169.5), (110, 169), (115, 168.8), (120, 169.5), (124, 170.5)),
        *((128, 171), (132, 170.3), (138, 169.7), (145, 169.5), (150, 169.8), (158, 171.5)),
    ),
    lower_lip=(),
)


def two_portraits() -> list[Portrait]:
    """The demo's portrait, and that of Grace Hopper from matplotlib's sample data."""
    return [load_portrait(), load_portrait(GRACE_HOPPER)]
