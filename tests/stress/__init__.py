"""Hours of mishaps and attacks in some minutes: ``python -m tests.stress`` (docs/reliability.md has what it promises).

Four parts, each a table of names: ``mutations`` damages a good file at random and reads it, ``damages`` does the worst
to one file after the other of a run and continues, ``kills`` ends real processes at random moments, ``races`` starts
several at once. A case is one try; all that is random in it comes from part, name, seed and number. It passes if it
ends in success, with the result that it would have had otherwise, or in a :class:`ddpm_ip.errors.UserError`.

:mod:`~tests.stress.cases` runs cases in processes of their own; :mod:`~tests.stress.goods` makes what is damaged;
:mod:`~tests.stress.mutate`, :mod:`~tests.stress.trees`, :mod:`~tests.stress.formats` and :mod:`~tests.stress.pickles`
damage it;
:mod:`~tests.stress.readers`, :mod:`~tests.stress.damages`, :mod:`~tests.stress.kills` and :mod:`~tests.stress.races`
are the parts. ``make test`` runs a small, fixed share (``test_stress.py``).
"""
