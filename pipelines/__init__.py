"""Jobs: configuration, plan, building and running the pipeline, ledger, report."""
