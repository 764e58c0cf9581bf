"""The vector index and the embedders: each adapter the only importer of its library."""
