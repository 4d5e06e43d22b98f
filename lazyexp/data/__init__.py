"""From a data set's name or path to tensors on the device."""

from lazyexp.data.features import with_features
from lazyexp.data.loading import Data, load_data, load_raw
from lazyexp.data.samples import Samples

__all__ = ["Data", "Samples", "load_data", "load_raw", "with_features"]
