"""Language models: each adapter the only importer of its library."""
