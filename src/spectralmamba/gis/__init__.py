"""Maps straight out to the GIS: styles, attribute tables, areas, polygons, overviews and STAC items of finished maps."""

from spectralmamba.gis.beside import GisFiles
from spectralmamba.gis.overview import write_overlay, write_picture
from spectralmamba.gis.polygons import write_polygons
from spectralmamba.gis.stac import write_item

__all__ = ["GisFiles", "write_item", "write_overlay", "write_picture", "write_polygons"]
