"""Sets made from talking-head videos: clips in, frames as records out.

`prepare.prepare_videos` is the way in, `command` its command line.
"""
