"""Human feedback: judgements on disk, files in and out, what raters are worth, and the widgets that ask."""
