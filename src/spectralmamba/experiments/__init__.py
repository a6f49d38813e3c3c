"""Experiments: a plan of data sets, splits, models and seeds in one TOML file, run, kept and told as tables and a page.

`plan` reads the file, `data` opens what it names, `execute` makes one run and `runner` all of them, `folder` keeps the results,
`tables` and `page` tell them.
"""
