"""Array types of the simulator."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
ComplexArray = NDArray[np.complexfloating]
