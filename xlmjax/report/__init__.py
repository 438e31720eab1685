"""One page about runs: read from their workdirs, drawn with Bokeh, in one file."""
