"""A simulated camera for small-angle scattering, with the geometry that data reduction needs."""

from ophyd_async.core import PathProvider, soft_signal_rw
from ophyd_async.sim import PatternGenerator, SimBlobDetector

__all__ = ["SaxsCamera"]


class SaxsCamera(SimBlobDetector):
    """A camera that writes frames to HDF5 files; its geometry is configuration, kept with every run.

    Frames are 240 by 320 pixels with a round spot in the middle. `distance` is that from the sample in metres, pixels
    are square, and the direct beam would hit the camera at `beam_center_x`, `beam_center_y`, counted from the corner of
    the first pixel.
    """

    def __init__(
        self,
        path_provider: PathProvider,
        pattern_generator: PatternGenerator | None = None,
        distance: float = 2.0,
        pixel_size: float = 0.172,
        beam_center: tuple[float, float] = (27.52, 20.64),
        wavelength: float = 1.0,
        name: str = "",
    ) -> None:
        self.distance = soft_signal_rw(float, distance, units="m", precision=4)
        self.x_pixel_size = soft_signal_rw(float, pixel_size, units="mm", precision=4)
        self.y_pixel_size = soft_signal_rw(float, pixel_size, units="mm", precision=4)
        self.beam_center_x = soft_signal_rw(float, beam_center[0], units="mm", precision=3)
        self.beam_center_y = soft_signal_rw(float, beam_center[1], units="mm", precision=3)
        self.wavelength = soft_signal_rw(float, wavelength, units="angstrom", precision=5)
        geometry = (self.distance, self.x_pixel_size, self.y_pixel_size, self.beam_center_x, self.beam_center_y)
        super().__init__(path_provider, pattern_generator, (*geometry, self.wavelength), name=name)
