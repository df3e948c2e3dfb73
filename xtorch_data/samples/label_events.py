"""Labels of events beside those of the samples around them."""

from __future__ import annotations

import xarray as xr

from ..planning.index_maps import IntArray
from .centers import free_name
from .labels import Labels
from .losses import CENTERS

__all__ = ["with_events"]


def with_events(
    found: dict[str, xr.Dataset], labels: Labels, samples: IntArray, single: bool
) -> xr.Dataset | xr.DataTree:
    """Labeled parts with the labels of the events of some samples.

    Parameters
    ----------
    found : dict of str to xarray.Dataset
        By source, its labeled parts; those of the events may be among them.
    labels : Labels
        Those of the events.
    samples : ndarray of int64
        Numbers of the samples.
    single : bool
        Whether one part alone is wanted.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        A Dataset of a single part, or where all parts are of the data and its events; else a tree
        with a node for each source, and one for the events.
    """
    lead = ("sample",) * samples.ndim
    of_events = labels.of_events(samples)
    own = found.pop(CENTERS, xr.Dataset(coords={"sample": (lead, samples)}))
    own = own.assign_coords({n: v for n, v in of_events.items() if n not in own.variables})
    if not single and not labels.joint:
        return xr.DataTree.from_dict({**found, CENTERS: own})
    for each in found.values():
        for name in [name for name in own.variables if name in each.variables]:
            if name != "sample":
                known = {*own.variables, *each.variables}
                own = own.rename({name: free_name(f"center_{name}", known)})
        own = each.assign_coords(own.coords).assign(own.data_vars)
    return own
