"""Files of many formats as documents: ordered blocks that know their pages or lines."""
