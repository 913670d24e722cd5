"""`cxr-edge bench`: what this box does, on the user's own pictures, with nothing but the edge install.

run.py        the command: pictures, rounds, report; the only part with side effects beyond a temporary folder
pictures.py   what is measured on: a sample of a folder, or phantoms
steps.py      each step that an image goes through, timed in this process
processes.py  what only a fresh process shows: cold start, whole sweeps, peak memory
figures.py    the figures and what follows from them; their JSON
against.py    two sets of figures side by side
tables.py     what a terminal shows
plot.py       what a PNG shows
"""
