"""Writers on documents: files and catalogues, in a service or subscribed to a bare RunEngine."""
