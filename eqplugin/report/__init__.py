"""Reports of studies: tables, tests, plots and a recommendation, from the JSON lines alone."""
