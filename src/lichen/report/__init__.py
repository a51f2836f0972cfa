"""Records in, something to read out: terminal tables, charts and one self-contained HTML page.

A report is a function of records and summaries alone. It measures nothing, concludes nothing and
opens no file, network connection or window: callers hand values in and get text or rich
renderables back. Units and significant figures are decided in ``format``, and nowhere else.
"""
