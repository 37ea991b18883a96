"""Rows of the improvement model: what a draft should become, by a community's votes or by a teacher.

planning   candidates of the pair rule -> revisions of the community, requests to the teacher
joining    a draft and the better reply that is likest to it; floor: how alike they have to be
teacher    requests -> answers in the store, within the budget; endpoint, in_house: one question
judging    answers -> the teacher's revisions
build      the stage ``revisions`` of these; work: its Ray shell
rows       revisions -> SFT rows and preference pairs, in the stages ``sft`` and ``pairs``
"""
