"""From a publisher's package to a release that this fleet may roll out."""
